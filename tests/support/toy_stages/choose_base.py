"""Toy stage: the real record of the base, of toy settings."""

from regraft.core.config import Params
from regraft.core.errors import Damaged
from regraft.core.files import write_json
from regraft.photos.base_choice import choose_record
from regraft.photos.base_record import read_base_record, record_of, write_base_record
from regraft.photos.base_requests import read_requests, write_requests
from regraft.photos.dataset import read_dataset
from regraft.photos.left_out import Today, write_left_out
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import obey


@stage
def choose_base(params: Params, progress: Progress) -> None:
    """Keep the record, or take today's."""
    obey("choose_base", "begin")
    paths = params.paths
    dataset, asked = read_dataset(paths.dataset, paths.raw), read_requests(paths.renewals)
    today = Today(dataset)
    new = record_of(today, {"epochs": params.fine_tune.epochs}, "", is_off=False)
    try:
        before = read_base_record(paths.base_photos, paths.raw)
    except (FileNotFoundError, Damaged):
        before = None
    choice = choose_record(before, new, today, asked=asked, renew_after=params.fine_tune.renew_after)
    write_base_record(paths.base_photos, choice.record)
    write_left_out(paths.left_out, choice.left_out)
    if not paths.renewals.exists():
        write_requests(paths.renewals, {})
    write_json(paths.reports / "base.json", {"words": choice.words})
    obey("choose_base", "end")


if __name__ == "__main__":
    choose_base.run()
