"""What a run costs as the data set grows: seconds per stage, peak memory, and bytes on the disk.

    python -m benchmarks.scale DIR [--sizes 1000 4000 16000 64000] [--seconds-only] [--quick]

The photos are random crops of those in DIR, no two files the same. For each size, without fine-tuning: a first run, a
run after 1 % new photos joined, and a run with nothing new, each `regraft retrain` against a running Prefect
server; then `dvc repro`. At the smallest and the largest size every stage also runs as a process of its own, on an
empty store and again with 1 % new photos: its peak memory is that of the process. The baseline is the smallest size.
`--seconds-only` leaves out these stages and the bytes, and so two further extractions of the largest size.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.backbones.catalogue import choose_backbone
from regraft.files import read_json, readable_bytes
from regraft.params_file import load_params
from tests.support.machine import describe_machine
from tests.support.photos import encode_photo, make_photos, usable_photos
from tests.support.pipeline import HEAD_ONLY, STAGES, FlowRun, Project, run_stage, stages_folder, temporary_project
from tests.support.prefect_server import running_server

_SPARE_BYTES = 2 * 10**9  # for what does not grow with the photos
_BYTES_BESIDE_A_PHOTO = 20_000  # its features in the store, in build/ and in DVC's cache, and its rows in tables


def measure(photos: Path, sizes: list[int], *, seconds_only: bool = False) -> dict[str, Any]:
    """Measure every size, smallest first; with `seconds_only` neither memory of single stages nor bytes."""
    sources = usable_photos(photos)
    _check_room(sources, max(sizes))
    if seconds_only:
        return {"sizes": [_measure_size(sources, size, is_smallest=False, is_end=False) for size in sorted(sizes)]}
    ends = (min(sizes), max(sizes))
    measured = [
        _measure_size(sources, size, is_smallest=size == ends[0], is_end=size in ends) for size in sorted(sizes)
    ]
    smallest, largest = measured[0]["peak_memory_mb"], measured[-1]["peak_memory_mb"]
    return {
        "sizes": measured,
        "bytes_per_image": measured[0].pop("bytes_per_image"),
        "peak_memory_ratio": {
            run: {stage: round(largest[run][stage] / peak, 2) for stage, peak in peaks.items()}
            for run, peaks in smallest.items()
        },
    }


def _check_room(sources: pd.DataFrame, size: int) -> None:
    """End before hours of work if the disk cannot hold the photos, DVC's copy of them, and the store."""
    mean = statistics.mean(len(encode_photo(sources, number)) for number in range(32))
    needed = int(size * 1.01 * (2 * mean + _BYTES_BESIDE_A_PHOTO)) + _SPARE_BYTES
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        sys.exit(
            f"{size} photos need {readable_bytes(needed)} in {folder}, and {readable_bytes(free)} are free there. "
            f"Set TMPDIR to a folder on a larger disk, or leave out the largest size."
        )


def _measure_size(sources: pd.DataFrame, size: int, *, is_smallest: bool, is_end: bool) -> dict[str, Any]:
    """Measure one size in a project of its own: bytes at the smallest, memory at both ends."""
    new = max(1, size // 100)
    print(f"{size} photos ...", file=sys.stderr)
    with temporary_project(HEAD_ONLY) as project, running_server(project.root.parent, project.environment) as server:
        result: dict[str, Any] = {"images": size, "new_images": new}
        make_photos(sources, project.raw, range(size))
        first = _figures(project, project.run_flow(server), new=size)
        _tell(size, first)
        if is_smallest:
            result["bytes_per_image"] = _bytes_per_image(project)
        make_photos(sources, project.raw, range(size, size + new))
        more = _figures(project, project.run_flow(server), new=new)
        _tell(size, more)
        nothing = _figures(project, project.run_flow(server), new=0)
        _tell(size, nothing)
        result["runs"] = {"first": first, "one_percent_new": more, "nothing_new": nothing}
        result["dvc_repro_seconds"] = round(project.run_repro().seconds, 2)
        if is_end:
            alone = stages_folder(project.root.parent / "alone", project.raw, HEAD_ONLY)
            empty = _peak_memory(alone)
            make_photos(sources, project.raw, range(size + new, size + 2 * new))
            result["peak_memory_mb"] = {"empty_store": empty, "one_percent_new": _peak_memory(alone)}
            print(f"{size} photos: {json.dumps(result['peak_memory_mb'])}", file=sys.stderr)
    return result


def _tell(size: int, figures: dict[str, Any]) -> None:
    """Say what a run came to at once: the largest size takes most of an hour."""
    print(f"{size} photos: {json.dumps(figures)}", file=sys.stderr)


def _figures(project: Project, run: FlowRun, *, new: int) -> dict[str, Any]:
    """A run's seconds, its parts, and per new photo: those of the whole run and those of the extraction alone."""
    figures: dict[str, Any] = {
        "seconds": round(run.process.seconds, 2),
        "peak_memory_mb": round(run.process.peak_memory_mb),
        "parts": {name: round(seconds, 3) for name, seconds in run.parts.items()},
        "outcomes": {name: step.outcome for name, step in run.steps.items()},
    }
    if new:
        receipt = read_json(project.root / "reports" / "features.json")
        figures["seconds_per_new_image"] = round(run.process.seconds / new, 4)
        figures["forward_passes"] = receipt["computed"]
        figures["extraction_seconds_per_new_image"] = round(receipt["seconds"] / new, 4)
    return figures


def _peak_memory(folder: Path) -> dict[str, int]:
    """Run every stage as a process of its own and return its peak resident memory in MB."""
    return {stage: round(run_stage(stage, folder, log=folder / "log").peak_memory_mb) for stage in STAGES}


def _bytes_per_image(project: Project) -> dict[str, int]:
    """Return what an image takes on the disk, by what is kept of it; prepared pixels are not, but could be."""
    photos = [path.stat().st_size for path in project.raw.rglob("*.jpg")]
    side = choose_backbone(load_params(project.root / "params.yaml").backbone).image_size
    # Activations are kept for fine-tuning only, and not of test images.
    fine_tuned = stages_folder(project.root.parent / "fine-tuned", project.raw, [*HEAD_ONLY, "fine_tune.mode=always"])
    for stage in ("validate_data", "preprocess", "cache_features"):
        run_stage(stage, fine_tuned, log=fine_tuned / "log")
    splits = read_json(fine_tuned / "reports" / "dataset.json")["splits"]
    return {
        "jpeg": round(statistics.mean(photos)),
        "prepared_pixels": side * side * 3,
        "activations": round(_stored(fine_tuned, "activations") / (splits["train"] + splits["val"])),
        "features": round(_stored(project.root, "features") / len(photos)),
    }


def _stored(root: Path, kind: str) -> int:
    """Bytes of the store's namespaces of a kind."""
    return sum(path.stat().st_size for path in (root / "build" / "store").glob(f"{kind}-*/**/*") if path.is_file())


def _print_tables(result: dict[str, Any]) -> None:
    sizes = result["sizes"]
    header = f"{'photos':24}" + "".join(f"{size['images']:>10}" for size in sizes)
    for run, title in [
        ("first", "first run"),
        ("one_percent_new", "1 % new photos"),
        ("nothing_new", "nothing new"),
    ]:
        print(f"\n{title}, seconds\n{header}")
        for part in sizes[0]["runs"][run]["parts"]:
            _print_row(part, [size["runs"][run]["parts"].get(part, 0.0) for size in sizes], "10.2f")
        _print_row("whole run", [size["runs"][run]["seconds"] for size in sizes], "10.2f")
        if run == "nothing_new":
            _print_row("dvc repro", [size["dvc_repro_seconds"] for size in sizes], "10.2f")
        else:
            _print_row("per new photo", [size["runs"][run]["seconds_per_new_image"] for size in sizes], "10.4f")
            extraction = [size["runs"][run]["extraction_seconds_per_new_image"] for size in sizes]
            _print_row("  extraction alone", extraction, "10.4f")
        _print_row("peak memory, MB", [size["runs"][run]["peak_memory_mb"] for size in sizes], "10.0f")
    if "peak_memory_ratio" not in result:
        return
    smallest, largest = sizes[0], sizes[-1]
    for run, ratios in result["peak_memory_ratio"].items():
        print(f"\npeak memory of a stage alone, {run.replace('_', ' ')}, MB")
        print(f"{'photos':24}{smallest['images']:>10}{largest['images']:>10}{'ratio':>10}")
        for stage, ratio in ratios.items():
            peaks = [part["peak_memory_mb"][run][stage] for part in (smallest, largest)]
            print(f"{stage:24}{peaks[0]:10.0f}{peaks[1]:10.0f}{ratio:10.2f}")
    print("\nbytes per image: " + ", ".join(f"{name} {size:,}" for name, size in result["bytes_per_image"].items()))


def _print_row(name: str, values: list[float], form: str) -> None:
    print(f"{name:24}" + "".join(f"{value:{form}}" for value in values))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Seconds, memory and bytes as the data set grows."
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 4000, 16000, 64000], metavar="N")
    parser.add_argument("--seconds-only", action="store_true", help="of whole runs: no memory of stages, no bytes")
    parser.add_argument("--quick", action="store_true", help="sizes 200 and 400")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    sizes = [200, 400] if arguments.quick else sorted(set(arguments.sizes))
    result = measure(arguments.photos, sizes, seconds_only=arguments.seconds_only)
    print(describe_machine())
    _print_tables(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
