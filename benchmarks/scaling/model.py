"""A cost model of a run, fitted to measurements and compared with one that it was not fitted to.

    python -m benchmarks.scaling.model RESULT ... [--held-out N] [--memory-gb 24]

A RESULT is what `python -m benchmarks.scaling` printed. Of each part of a run

    seconds = a + b * photos + c * min(new, CAP) + d * min(photos, CAP)     a, b, c, d >= 0

by least squares of relative errors: `photos` are those of the data set, `new` those that are decoded or run through the
backbone, and CAP the number from which on a stage looks at no more of them. Memory is fitted in the same way without
`new`. It is the model of a run that has something to do: one of photos with nothing new passes over its stages, and is
left out.
The largest size of each kind (or `--held-out`) is left out of the fit and compared with it; then all sizes are fitted,
and what follows from them for 1, 10 and 100 million photos is printed. Of that only what is distributed is divided by
the number of workers, each as fast as the machine of the measurements: decoding, forward passes, evaluation.

Measurements of tables without photos (`--rows`) reach farther and have no new photos, so they decide b and d. Their
first run of validate_data is left out: it reads every file, as only a fresh clone does. What is not in the model:
networks and buckets, photos that are larger than those measured, and other values of `max_photos`. Where no measurement
is beyond a CAP, nothing is known of what grows on there, and the model has it that nothing does.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Entry = dict[str, Any]  # as in `scaling`
# Photos from which on a stage looks at a sample: `max_photos` of params.yaml by the share of the split that it is of.
CAPS = {"check_features": 71_000, "train_head": 143_000, "export_onnx": 133_000, "evaluate": 133_000}
CAPS |= {"train_base": 59_000, "fine_tune": 59_000}
_TERMS = ("each run", "per photo", "per new photo", "per photo of the sample")
_NEW = 2  # the place of the third
_SHARED = ("validate_data", "cache_features", "evaluate")  # parts whose work on new photos is divided among workers
_SIZES, _WORKERS = (10**6, 10**7, 10**8), (1, 8, 64)
_LEAST_SECONDS = 1.0  # below which an error is not looked at as a share: starting Python varies as much


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a run takes, as far as the measurements tell."""

    seconds: np.ndarray  # four terms, in the order of `_TERMS`
    memory_mb: np.ndarray  # the same, the third one 0
    cap: int | None  # photos of which it looks at a sample; None: it never does

    def predict(self, photos: int, new: int, *, workers: int = 1) -> float:
        """Return its seconds, with the work on new photos divided among so many workers."""
        terms = self.seconds * _row(photos, new, self.cap)
        terms[_NEW] /= workers
        return float(terms.sum())

    def peak_mb(self, photos: int) -> float:
        """Return its peak memory."""
        return float(self.memory_mb @ _row(photos, 0, self.cap))

    def most_photos(self, memory_gb: float) -> float:
        """Return for how many photos the memory of a machine is enough; infinite where it does not grow."""
        fixed, each = self.memory_mb[0] + self.memory_mb[3] * (self.cap or 0), self.memory_mb[1]
        return (memory_gb * 1000 - fixed) / each if each > 1e-9 else float("inf")


def fit(entries: Sequence[Entry]) -> dict[str, Part]:
    """Return the parts of a run by name, fitted to measurements."""
    names = dict.fromkeys(name for entry in entries for name in entry["parts"])
    return {name: _fit_part(name, entries) for name in names}


def _fit_part(name: str, entries: Sequence[Entry]) -> Part:
    of_a_clone = ("rows", "first", "validate_data")
    measured = [e for e in entries if name in e["parts"] and (e["kind"], e["run"], name) != of_a_clone]
    cap = CAPS.get(name)
    rows = np.array([_row(entry["photos"], entry["new"], cap) for entry in measured])
    seconds, memory = (
        np.array([entry["parts"][name][figure] for entry in measured]) for figure in ("seconds", "peak_memory_mb")
    )
    if cap is not None and rows[:, 1].max() <= cap:  # what grows with the photos grows with the sample, as far as seen
        rows = rows * [1, 0, 1, 1]
    return Part(_non_negative(rows, seconds), _non_negative(rows * [1, 1, 0, 1], memory), cap)


def _row(photos: int, new: int, cap: int | None) -> np.ndarray:
    return np.array([1, photos, new if cap is None else min(new, cap), min(photos, cap or 0)], float)


def _non_negative(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares of relative errors; a term that the measurements cannot tell from another one is 0."""
    from scipy.optimize import nnls

    weights = 1 / np.maximum(values, _LEAST_SECONDS)
    scale = np.maximum(rows.max(axis=0), 1)  # so that the solver's tolerance means the same for all terms
    return nnls(rows / scale * weights[:, None], values * weights)[0] / scale


def without(entries: Sequence[Entry], held_out: int | None) -> tuple[list[Entry], list[Entry]]:
    """Part measurements into those to fit and those to compare with: of each kind the largest size, or one size."""
    left_out: set[tuple[str, int]] = set()
    for kind in dict.fromkeys(entry["kind"] for entry in entries):
        sizes = sorted({entry["photos"] for entry in entries if entry["kind"] == kind and entry["run"] == "first"})
        if len(sizes) > 2 and (held_out is None or held_out in sizes):
            left_out.add((kind, held_out or sizes[-1]))
    # A run with 1 % new photos belongs to the size that it came after.
    is_left_out = [
        any(entry["kind"] == kind and size <= entry["photos"] <= 1.02 * size for kind, size in left_out)
        for entry in entries
    ]
    return (
        [entry for entry, is_out in zip(entries, is_left_out, strict=True) if not is_out],
        [entry for entry, is_out in zip(entries, is_left_out, strict=True) if is_out],
    )


def print_comparison(parts: dict[str, Part], measured: Iterable[Entry]) -> None:
    """Print predictions beside what was measured and not fitted."""
    for entry in measured:
        print(f"\n{entry['photos']:,} {entry['kind']}, {entry['run'].replace('_', ' ')}: predicted, measured")
        sums = np.zeros(2)
        for name in (name for name in entry["parts"] if name in parts):
            both = np.array([parts[name].predict(entry["photos"], entry["new"]), entry["parts"][name]["seconds"]])
            megabytes = parts[name].peak_mb(entry["photos"]), entry["parts"][name]["peak_memory_mb"]
            print(f"  {name:24}{both[0]:9.1f}{both[1]:9.1f} s{megabytes[0]:9.0f}{megabytes[1]:9.0f} MB")
            sums += both
        print(f"  {'together':24}{sums[0]:9.1f}{sums[1]:9.1f} s, {sums[0] / sums[1] - 1:+.0%}")


def predictions(parts: dict[str, Part]) -> list[dict[str, Any]]:
    """Return the hours of a first run and of one with 1 % new photos, by numbers of photos and of workers."""
    rows = []
    for photos in _SIZES:
        for workers in _WORKERS:
            hours = {
                run: round(
                    sum(
                        part.predict(photos, new, workers=workers if name in _SHARED else 1)
                        for name, part in parts.items()
                    )
                    / 3600,
                    2,
                )
                for run, new in (("first", photos), ("one_percent_new", photos // 100))
            }
            rows.append({"photos": photos, "workers": workers, "hours": hours})
    return rows


def bytes_per_photo(entries: Iterable[Entry]) -> dict[str, int]:
    """Return what a photo takes on the disk, by folder, where the largest number of photos was measured."""
    measured = [entry for entry in entries if "bytes" in entry]
    if not measured:
        return {}
    largest = max(measured, key=lambda entry: entry["photos"])
    return {name: round(size / largest["photos"]) for name, size in largest["bytes"].items()}


def read_entries(paths: Iterable[Path]) -> list[Entry]:
    """Return the measurements in what `scaling` printed."""
    return [entry for path in paths for entry in json.loads(path.read_text().splitlines()[-1])]


def with_something_to_do(entries: Iterable[Entry]) -> list[Entry]:
    """Return the measurements of runs that did not pass over their stages."""
    return [entry for entry in entries if (entry["kind"], entry["run"]) != ("photos", "nothing_new")]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Predict what runs cost.")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT")
    parser.add_argument("--held-out", type=int, metavar="N", help="the size to compare with; the largest without it")
    parser.add_argument("--memory-gb", type=float, default=24.0, help="of the machine that coordinates")
    arguments = parser.parse_args()
    everything = read_entries(arguments.results)
    entries = with_something_to_do(everything)
    fitted, compared = without(entries, arguments.held_out)
    if not compared:
        raise SystemExit(
            "scaling_model stopped: no kind of measurement has three sizes, so no prediction could be compared with "
            "one that it was not fitted to. Measure more sizes, such as --photos 4000 16000 64000."
        )
    print_comparison(fit(fitted), compared)
    parts = fit(entries)
    print("\nseconds: " + ", ".join(_TERMS) + "; and photos for which the memory is enough")
    for name, part in parts.items():
        terms = "".join(f"{term:12.3g}" for term in part.seconds)
        print(f"  {name:24}{terms}{part.most_photos(arguments.memory_gb):14.3g}")
    rows = predictions(parts)
    for row in rows:
        print(f"{row['photos']:>12,} photos on {row['workers']:>2} worker(s): {json.dumps(row['hours'])} hours")
    most = {name: part.most_photos(arguments.memory_gb) for name, part in parts.items()}
    memory = {name: round(photos) for name, photos in most.items() if math.isfinite(photos)}
    print(json.dumps({"predictions": rows, "most_photos": memory, "bytes_per_photo": bytes_per_photo(everything)}))


if __name__ == "__main__":
    main()
