"""What is done for classes that are rare in training: section `train_head`, key `class_weight` of params.yaml."""

import numpy as np

from regraft.core.config import ClassWeight
from regraft.training.metrics import Objective


def weights_of(class_weight: ClassWeight, class_indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the weight of each class in the loss, float32, shape (num_classes,); over the images they average to 1.

    balanced: images / (num_classes * images of the class), as in scikit-learn.
    """
    counts = np.bincount(class_indices, minlength=num_classes)
    if class_weight == "balanced":
        return (len(class_indices) / (num_classes * counts)).astype(np.float32)
    return np.ones(num_classes, np.float32)


def prior_of(class_weight: ClassWeight, class_indices: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Return what probabilities are multiplied by while training, float32, shape (num_classes,), positive; or None.

    logit_adjustment: the shares of the classes. The network then need not learn them, and in use, without them, it
    treats all classes as equally likely. Menon et al., "Long-tail learning via logit adjustment", 2021, with tau = 1.
    """
    if class_weight != "logit_adjustment":
        return None
    return (np.bincount(class_indices, minlength=num_classes) / len(class_indices)).astype(np.float32)


def objective_of(class_weight: ClassWeight) -> Objective:
    """Return the figures that sweeps and blending go by, and that reports name.

    Who asks for help for rare classes wants every class named rightly, however few its photos are: recall and log loss
    are then means over classes. By accuracy a network that never names a rare class would win.
    """
    if class_weight == "none":
        return Objective("accuracy", "log_loss")
    return Objective("macro_recall", "balanced_log_loss")
