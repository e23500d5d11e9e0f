"""What looking at every photo costs: validate_data against CleanVision, on the same folder.

    python -m benchmarks.speed.validation DIR [--files 50000] [--quick]

The photos are random crops of those in DIR, no two files the same. Each run is a process of its own: the stage on an
empty store, with nothing new, and after 1 % of the files were replaced by others; then CleanVision, which keeps nothing
between runs, with its default checks and as many processes as there are cores.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.photos import make_photos, usable_photos
from benchmarks.support.projects import Ended, describe_machine, run, run_stage, stages_folder
from regraft.core.files import read_json

_CLEANVISION = """
import sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues(n_jobs=int(sys.argv[2]), verbose=False)
"""


def measure(photos: Path, files: int) -> dict[str, Any]:
    """Make the photos, and look at them both ways."""
    with tempfile.TemporaryDirectory(prefix="regraft-validation-") as temporary:
        raw, sources = Path(temporary, "raw"), usable_photos(photos)
        make_photos(sources, raw, range(files))
        project = stages_folder(Path(temporary, "project"), raw, [])
        log = Path(temporary, "log")
        result = {"files": files, "cold": _figures(run_stage("validate_data", project, log=log))}
        # Files that were written within two seconds of the scan are read again; these are old by the second run.
        result["nothing_new"] = _figures(run_stage("validate_data", project, log=log))
        changed = max(1, files // 100)
        for path in sorted(raw.rglob("*.jpg"))[::100][:changed]:
            path.unlink()
        make_photos(sources, raw, range(files, files + changed))
        result["one_percent_new"] = _figures(run_stage("validate_data", project, log=log))
        report = read_json(project / "reports" / "validation.json")
        result["found"] = {entry["name"]: entry["count"] for entry in report["expectations"] if not entry["success"]}
        command = [sys.executable, "-c", _CLEANVISION, str(raw), str(os.cpu_count())]
        result["cleanvision"] = _figures(run(command, Path(temporary), dict(os.environ), log=log))
        result["bytes_of_photos"] = sum(path.stat().st_size for path in raw.rglob("*.jpg"))
        shutil.rmtree(raw)
    for name in ("cold", "nothing_new", "one_percent_new"):
        result[name]["cleanvision_over_regraft"] = round(result["cleanvision"]["seconds"] / result[name]["seconds"], 2)
    return result


def _figures(ended: Ended) -> dict[str, float]:
    return {"seconds": round(ended.seconds, 1), "peak_memory_mb": round(ended.peak_memory_mb)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.validation",
        description="Seconds and memory of validation, against CleanVision.",
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--quick", action="store_true", help="1,000 files")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    result = measure(arguments.photos, 1000 if arguments.quick else arguments.files)
    print(describe_machine())
    print(f"{result['files']} photos, {result['bytes_of_photos'] / 1e9:.1f} GB; memory is that of the largest process")
    for name in ("cold", "nothing_new", "one_percent_new", "cleanvision"):
        figures = result[name]
        ratio = f"{figures['cleanvision_over_regraft']:8.2f}x" if name != "cleanvision" else ""
        print(f"  {name:16} {figures['seconds']:8.1f} s {figures['peak_memory_mb']:6.0f} MB {ratio}")
    print(f"found: {result['found']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
