"""Stage 4 of 7: train the new classifier on the cached features.

Reads build/features.arrow; writes models/head.keras, reports/head.json, reports/head_curve.csv and .png.
"""

from regraft.config import Params
from regraft.features import read_features
from regraft.files import write_json
from regraft.heads import to_keras, train_heads
from regraft.networks import save_model, start_keras
from regraft.plots import write_curve
from tasks.stage import Progress, stage


@stage
def train_head(params: Params, progress: Progress) -> None:
    """Write the head as it was at its lowest cross-entropy on val."""
    settings, paths = params.train_head, params.paths
    epochs_done = progress("epochs")
    (trained,) = train_heads(
        read_features(paths.features),
        [settings],
        seed=params.seed,
        on_epoch=lambda epoch: epochs_done(epoch, settings.epochs),
    )
    start_keras(params.seed)
    save_model(paths.head, to_keras(trained))
    write_json(paths.reports / "head.json", trained.best.as_report(epochs_run=trained.curve[-1].epoch))
    write_curve(paths.reports / "head_curve.csv", trained.curve, trained.best, title="Head on cached features")


if __name__ == "__main__":
    train_head.run()
