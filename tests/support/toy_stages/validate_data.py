"""Toy stage: what is in the data folder."""

from pathlib import Path

from regraft.core.config import Params
from regraft.core.files import sha256_of, write_json
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def validate_data(params: Params, progress: Progress) -> None:
    """Write path, digest and class of every photo."""
    obey("validate_data", "begin")
    raw = params.paths.raw
    photos = [[path.relative_to(raw).as_posix(), sha256_of(path), path.parent.name] for path in raw.rglob("*.png")]
    write_json(Path("build/files.json"), sorted(photos))
    obey("validate_data", "end")


if __name__ == "__main__":
    validate_data.run()
