"""The record of code: which sources and libraries decide what each stage writes, in build/provenance.json.

Every stage of dvc.yaml has its entry of that file among its params, so DVC reruns exactly the stages whose code or
libraries changed. `tasks/record_code.py` writes the file; whenever a stage runs, the seam compares it with what runs.
"""

import re
from dataclasses import asdict, astuple
from pathlib import Path

from regraft.core.errors import Damaged
from regraft.core.files import read_json, reading, write_json
from regraft.core.provenance import Provenance, Snapshot, installed_versions, provenance_of, take_snapshot

RECORDER = "record_code"
RECORD = Path("build", "provenance.json")
# The seam decides when a stage runs, and the report is a view: no byte of an output passes through them, so editing
# them redoes no stage. Rows that stage_inputs finds have checksums in features.arrow, or are named by everything that
# decides them.
SEAM = (
    "tasks",
    "tasks.code_record",
    "tasks.disk_space",
    "tasks.dvc_files",
    "tasks.dvc_seam",
    "tasks.found_store",
    "tasks.progress",
    "tasks.project",
    "tasks.report",
    "tasks.runs",
    "tasks.runs.current_run",
    "tasks.runs.live_runs",
    "tasks.runs.prefect_api",
    "tasks.safe_dvc",
    "tasks.stage",
    "tasks.stage_inputs",
    "tasks.stage_limits",
    "tasks.step",
    "tasks.stopping",
)
NOTHING = Provenance({}, {})

_at_start = take_snapshot()  # a flow imports every stage when it starts, and a stage may begin hours later


def what_decides(stage: str, snapshot: Snapshot | None = None) -> Provenance:
    """Return what decides the outputs of a stage, now or when a snapshot was taken."""
    return provenance_of(f"tasks.{stage}", snapshot=snapshot, without=SEAM)


def what_decides_each() -> dict[str, Provenance]:
    """Return the same for every stage: modules in tasks/ with a function that is decorated with `@stage`."""
    snapshot = take_snapshot()
    stages = [
        name.removeprefix("tasks.")
        for name, text in sorted(snapshot.modules.items())
        if name.startswith("tasks.") and re.search(rb"^@stage$", text, re.M)
    ]
    return {stage: what_decides(stage, snapshot) for stage in stages if stage != RECORDER}


def read_record(root: Path) -> dict[str, Provenance]:
    """Return what is recorded; nothing if the file is missing or damaged, since it is then written anew."""
    try:
        with reading(root / RECORD, "what decides each stage"):
            record = {stage: Provenance(**facts) for stage, facts in read_json(root / RECORD).items()}
            if not all(isinstance(part, dict) for decides in record.values() for part in astuple(decides)):
                raise TypeError("something else than objects")
            return record
    except (FileNotFoundError, Damaged):
        return {}


def recorded_sources(root: Path) -> list[Path]:
    """Return where the sources of the recorded modules may lie, relative to the root; a package has two of them."""
    modules = sorted({module for decides in read_record(root).values() for module in decides.code})
    places = [Path(*module.split(".")) for module in modules]
    return [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]


def write_record(root: Path, record: dict[str, Provenance]) -> None:
    """Write what decides each stage."""
    write_json(root / RECORD, {stage: asdict(decides) for stage, decides in record.items()})


def has_other_libraries(root: Path) -> bool:
    """Whether a recorded library has another version now. DVC cannot see that: pip changes no file of the project."""
    installed = installed_versions()
    recorded = [library for decides in read_record(root).values() for library in decides.libraries.items()]
    return any(installed.get(name) != version for name, version in recorded)


def changed_since_start(stage: str) -> list[str]:
    """Return what has changed of what decides a stage since this process began, and loaded some of it."""
    return differences(what_decides(stage, _at_start), what_decides(stage))


def changed_since_recorded(stage: str, root: Path) -> list[str]:
    """Return in what the code and libraries of a stage differ from those that are recorded."""
    return differences(read_record(root).get(stage, NOTHING), what_decides(stage))


def differences(before: Provenance, now: Provenance) -> list[str]:
    """Return the names of modules that differ, and of libraries with both versions."""
    modules = sorted(dict(before.code.items() ^ now.code.items()))
    libraries = sorted(dict(before.libraries.items() ^ now.libraries.items()))
    versions = [(name, before.libraries.get(name, "unused"), now.libraries.get(name, "unused")) for name in libraries]
    return modules + [f"{name} {old} -> {new}" for name, old, new in versions]
