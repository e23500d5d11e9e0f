"""Several devices and lower precision, on a CPU: what a machine without a GPU can show of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from regraft.training.devices import compute_dtype, strategy

_STEPS = """
import json
import keras, numpy as np, tensorflow as tf
from keras import layers
from regraft.training.keras_models import start_keras
from regraft.training.trainer import Trainer

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
values = np.random.default_rng(0).normal(size=(39, 6)).astype(np.float32)
targets = np.eye(3, dtype=np.float32)[(values[:, 0] > 0).astype(int) + (values[:, 1] > 0)]
results = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    start_keras(0)
    with strategy.scope():
        image = keras.Input((6,))
        hidden = layers.Dense(8, activation="relu")(image)
        model = keras.Model(image, layers.Softmax()(layers.Dense(3)(hidden)))
        rates = {variable.path: 1.0 for variable in model.trainable_variables}
        trainer = Trainer(model, rates, weight_decay=0.1, dtype="float32")
        trainer.restore(trainer.state())
        losses = [trainer.step(values, targets, 0.01) for _ in range(4)]
    weights = [weight.tolist() for weight in model.get_weights()]
    results.append((strategy.num_replicas_in_sync, losses, np.concatenate(list(map(np.ravel, weights))).tolist()))
print(json.dumps(results))
"""


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_without_a_gpu_nothing_changes():
    assert (strategy(), compute_dtype()) == (tf.distribute.get_strategy(), "float32")


def test_two_devices_take_the_steps_of_one(root: Path):
    environment = os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run([sys.executable, "-c", _STEPS], env=environment, check=True, capture_output=True, text=True)
    (one, *of_one), (two, *of_two) = json.loads(ended.stdout.splitlines()[-1])
    assert (one, two) == (1, 2)
    for ours, theirs in zip(of_two, of_one, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)  # float32, summed in two parts
