"""Toy stage: says that the features are fine."""

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.features.table import read_features
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def check_features(params: Params, progress: Progress) -> None:
    """Write how many there are."""
    obey("check_features", "begin")
    write_json(
        params.paths.reports / "features_verdict.json", {"rows": len(read_features(params.paths.features).digests)}
    )
    obey("check_features", "end")


if __name__ == "__main__":
    check_features.run()
