"""Toy stage: the name of the base."""

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.photos.base_record import read_base_record
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def train_base(params: Params, progress: Progress) -> None:
    """Write it."""
    obey("train_base", "begin")
    write_json(params.paths.base, {"of": read_base_record(params.paths.base_photos, params.paths.raw).name})
    obey("train_base", "end")


if __name__ == "__main__":
    train_base.run()
