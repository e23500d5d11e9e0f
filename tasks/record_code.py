"""Before the stages: record which code and which libraries decide what each of them writes.

Reads the sources in regraft/ and tasks/, and the versions of the installed libraries; writes build/provenance.json, one
entry per stage. A stage runs again when its entry changes. A comment, a docstring or a test changes none.
"""

from pathlib import Path

from regraft.core.config import Params
from regraft.core.provenance import Provenance
from regraft.photos.folder import check_folder
from tasks.code_record import NOTHING, differences, read_record, what_decides_each, write_record
from tasks.progress import Progress
from tasks.stage import stage


@stage
def record_code(params: Params, progress: Progress) -> None:
    """Write the record, and say what changed in it and which stages run again because of that."""
    if params.paths.raw.exists():
        check_folder(params.paths.raw)  # under `dvc repro` this stage is the first to run, often before DVC looks there
    before, now = read_record(Path()), what_decides_each()
    write_record(Path(), now)
    for line in _changes(before, now):
        print(f"record_code: {line}")


def _changes(before: dict[str, Provenance], now: dict[str, Provenance]) -> list[str]:
    """Return one sentence per module or library that changed."""
    if not before:
        return [f"recorded the code and libraries of {len(now)} stages"]
    stages: dict[str, list[str]] = {}
    for stage_name, decides in now.items():
        for change in differences(before.get(stage_name, NOTHING), decides):
            stages.setdefault(change, []).append(stage_name)
    return [_sentence(change, names, len(now)) for change, names in stages.items()] or ["no stage is affected"]


def _sentence(change: str, names: list[str], stages: int) -> str:
    if len(names) == stages:
        return f"{change} changed: all stages run again"
    return f"{change} changed: {', '.join(names)} {'run' if len(names) > 1 else 'runs'} again"


if __name__ == "__main__":
    record_code.run()
