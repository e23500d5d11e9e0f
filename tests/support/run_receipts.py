"""A small project in git as a run leaves it, without DVC or any stage having run, and records of runs in it."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from regraft.core.files import md5_of, write_json
from regraft.core.provenance import installed_versions
from tasks.code_record import RECORD
from tasks.runs.current_run import RunRecord, StageRun

ROOT = Path(__file__).parents[2]
STARTED = datetime(2026, 11, 26, 3, tzinfo=UTC)
STAGES = ("record_data", "validate_data", "export_onnx", "evaluate")

_LOCK = """\
schema: '2.0'
stages:
  validate_data:
    cmd: python -m tasks.validate_data
    deps:
    - path: data/raw
      hash: md5
      md5: {data}.dir
      size: 82775
      nfiles: 301
    params:
      build/provenance.json:
        validate_data:
          code:
            tasks.validate_data: {code}
          libraries:
            numpy: {numpy}
      params.yaml:
        validate_data:
          max_pixels: {max_pixels}
    outs:
    - path: build/manifest.parquet
      hash: md5
      md5: {data}
      size: 83699
  export_onnx:
    cmd: python -m tasks.export_onnx
    deps:
    - path: build/manifest.parquet
      hash: md5
      md5: {data}
      size: 83699
    outs:
    - path: models/model.onnx
      hash: md5
      md5: {model}
      size: 9
"""


# Asking each of some twenty packages for its version takes a tenth of a second.
versions = cache(installed_versions)


def write_project(root: Path) -> None:
    """Write what a run leaves behind into an empty folder."""
    for name in ("tasks", "data", "models", ".dvc/tmp/regraft"):
        (root / name).mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", root)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "tasks" / "stage.py").write_text("code = 1\n")
    (root / "tasks" / "validate_data.py").write_text("code = 1\n")
    (root / "automations.yaml").write_text("automations: []\n")
    (root / ".gitignore").write_text("/models/\n/build/\n/.dvc/tmp\n*.secret\nignored*\n")
    write_json(root / RECORD, {"validate_data": {"code": {"tasks.validate_data": "1234"}, "libraries": {}}})
    write_results(root)


def write_repository(root: Path) -> None:
    """The same in a git repository, with one commit."""
    write_project(root)
    git(root, "init", "--quiet", "-b", "main")
    git(root, "add", "params.yaml", "dvc.yaml", "tasks", ".gitignore", "automations.yaml")
    git(root, "commit", "--quiet", "-m", "begin")


def write_results(root: Path, data: str = "a", **values: str) -> None:
    """Write what the stages write, as if the data had the MD5 aaa..., and other values in dvc.lock."""
    (root / "data" / "raw.dvc").write_text(
        f"outs:\n- path: raw\n  md5: {data * 32}.dir\n  size: 82775\n  nfiles: 301\n"
    )
    (root / "data" / ".gitignore").write_text("/raw\n")
    (root / "data" / "splits.csv").write_text("digest,split\n")
    (root / "models" / "model.onnx").write_text(f"model {data}\n")
    facts = {"data": data * 32, "model": md5_of(root / "models" / "model.onnx")}
    facts |= {"code": "1234", "numpy": "2.1", "max_pixels": "120000000"} | values
    (root / "dvc.lock").write_text(_LOCK.format(**facts))


def record_of(number: int, name: str = "Promoted", words: str = "It is good.", *outcomes: str) -> RunRecord:
    """Return the record of the run of a night; outcomes are those of STAGES, all of which ran if none is given."""
    started = STARTED + timedelta(days=number)
    stages = zip(STAGES, outcomes or ("Recorded", "Ran", "Ran", "Ran"), strict=False)
    runs = tuple(StageRun(stage, outcome, 1.23) for stage, outcome in stages)
    run = f"{started:%Y%m%dT%H%M%S}-{number:06x}"
    return RunRecord(run, started, started + timedelta(minutes=5), "retrain-nightly", name, words, runs)


def git(root: Path, *arguments: str) -> str:
    """Run git as a person does, who has a name and an e-mail address."""
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return ended.stdout.rstrip("\n")
