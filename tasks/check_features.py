"""Stage 4 of 11: look at the photos through the frozen features: leaks, wrong labels, outliers, drift.

Reads build/features.arrow, and rows of the store where it names them, build/dataset.parquet and the groups of
build/manifest.parquet, and what the model in production and the anchor were trained on, which
are no deps here either (see `tasks.validate_data`); writes reports/embeddings.json, reports/label_errors.csv, and
reports/features_verdict.json, without which no head is trained.
"""

from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.core.files import write_json
from regraft.features.checks import check, write_label_errors
from regraft.features.table import Features
from regraft.photos.dataset import read_dataset
from regraft.photos.manifest import read_manifest
from regraft.production.records import Records
from regraft.production.training_data import compared_features
from regraft.validation.checks import problems_that_stop
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import open_features


@stage
def check_features(params: Params, progress: Progress) -> None:
    """Write what the features say; a violated check of severity error stops the run before anything is trained."""
    with open_features(params) as features:
        _check(features, params, progress)


def _check(features: Features, params: Params, progress: Progress) -> None:
    settings, paths = params.check_features, params.paths
    dataset = read_dataset(paths.dataset, paths.raw)
    used = read_manifest(paths.manifest)[1].query("verdict == 'use'")
    groups = dict(zip(used.digest.tolist(), used.group.tolist(), strict=True))
    records = Records(paths.production)
    comparisons = [compared_features(records.find_reference(), "production", features, groups)]
    if comparisons[0].samples:
        comparisons.append(compared_features(records.anchor_reference(), "anchor", features, groups))
    of_images = [groups[digest] for digest in dataset.rows.digest.tolist()]
    report, labels = check(features, dataset, of_images, settings, comparisons, on_progress=progress("checks"))
    write_json(paths.reports / "embeddings.json", report)
    write_label_errors(paths.reports / "label_errors.csv", labels)
    stops = problems_that_stop(report)
    if stops:
        raise InvalidData("\n".join([f"the photos in {paths.raw} should not be trained on as they are:", *stops]))
    # The same bytes whenever the run may go on: training depends on this file, and not on what is reported.
    write_json(paths.reports / "features_verdict.json", {"may_be_trained_on": True})


if __name__ == "__main__":
    check_features.run()
