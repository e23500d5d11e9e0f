"""Stage 4 of 8: look at the photos through the frozen features: leaks, wrong labels, outliers, drift.

Reads build/features.arrow and build/dataset.parquet, and what the model in production was trained on, which
is no dep here either (see `tasks.validate_data`); writes reports/embeddings.json, reports/label_errors.csv, and
reports/features_verdict.json, without which no head is trained.
"""

from regraft.config import Params
from regraft.errors import InvalidData
from regraft.features.checks import check, write_label_errors
from regraft.features.table import read_features
from regraft.files import write_json
from regraft.photos.dataset import read_dataset
from regraft.production.records import Records
from regraft.production.training_data import compared_features
from regraft.validation.checks import problems_that_stop
from tasks.progress import Progress
from tasks.stage import stage


@stage
def check_features(params: Params, progress: Progress) -> None:
    """Write what the features say; a violated check of severity error stops the run before anything is trained."""
    settings, paths = params.check_features, params.paths
    features, dataset = read_features(paths.features), read_dataset(paths.dataset, paths.raw)
    reference, compared_with = Records(paths.production).find_reference()
    in_production, compared_with = compared_features(reference, features, compared_with)
    report, labels = check(
        features, dataset, settings, in_production, compared_with=compared_with, on_progress=progress("checks")
    )
    write_json(paths.reports / "embeddings.json", report)
    write_label_errors(paths.reports / "label_errors.csv", labels)
    stops = problems_that_stop(report)
    if stops:
        raise InvalidData("\n".join([f"the photos in {paths.raw} should not be trained on as they are:", *stops]))
    # The same bytes whenever the run may go on: training depends on this file, and not on what is reported.
    write_json(paths.reports / "features_verdict.json", {"may_be_trained_on": True})


if __name__ == "__main__":
    check_features.run()
