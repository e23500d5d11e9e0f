"""Stage 5 of 11: train the new classifier on the cached features.

Reads build/features.arrow, and rows of the store where it names them; writes models/head.npz, reports/head.json,
reports/leaderboard.csv and reports/head_curve.csv.
"""

from collections.abc import Callable
from dataclasses import asdict

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.features.table import Features
from regraft.training.baselines import Yardstick, accuracy_of, conclusions, probe
from regraft.training.heads import MAX_EPOCHS, find_head, learning_curve, write_leaderboard
from regraft.training.metrics import objective_of, write_curve
from regraft.training.network_file import write_head
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import open_features


@stage
def train_head(params: Params, progress: Progress) -> None:
    """Write the best head of the sweep on val, and what it says of the photos."""
    with open_features(params) as features:
        _train(features, params, progress)


def _train(features: Features, params: Params, progress: Progress) -> None:
    settings, paths = params.train_head, params.paths

    def watch(what: str) -> Callable[[int], None]:
        epochs_done = progress(f"{what} epochs")
        return lambda epoch: epochs_done(epoch, MAX_EPOCHS)

    winner, comparison = find_head(features, settings, seed=params.seed, watch=watch)
    objective, val_classes = objective_of(settings.class_weight), features.class_indices[comparison.rows.val]
    curve = learning_curve(comparison, settings, seed=params.seed, watch=watch)
    probes = probe(comparison.rows)
    write_head(paths.head, winner)
    report = {
        "objective": asdict(objective),
        "val": asdict(winner.best.val),
        "best_epoch": winner.best.epoch,
        "epochs_run": winner.curve[-1].epoch,
        "settings": asdict(winner.settings),
        "settings_tried": len(comparison.ranked),
        "accuracy": asdict(accuracy_of(winner.right)),
        "probes": {name: asdict(accuracy) for name, accuracy in probes.accuracies().items()},
        "learning_curve": {photos: asdict(accuracy_of(right)) for photos, right in curve.items()},
        "photos": {"trained_on": comparison.photos, "compared_on": comparison.rows.photos, "val": len(val_classes)},
        "words": conclusions(probes, winner.right, curve, comparison.photos, Yardstick(objective, val_classes)),
    }
    write_json(paths.reports / "head.json", report)
    write_leaderboard(paths.reports / "leaderboard.csv", comparison.ranked)
    write_curve(paths.reports / "head_curve.csv", winner.curve)


if __name__ == "__main__":
    train_head.run()
