"""Settings of former versions: a params.yaml that still has them is read, and a person is told what holds now."""

import sys
from pathlib import Path
from typing import Any

# By key: the value that holds now, and what to do if another one is wanted.
_PATH = "it has one place now; move the file there, or remove the key"
RETIRED: dict[str, tuple[Any, str]] = {
    "paths.manifest": ("build/manifest.parquet", _PATH),
    "paths.dataset": ("build/dataset.parquet", _PATH),
    "paths.splits": ("data/splits.csv", _PATH),
    "paths.renewals": ("data/base_renewals.csv", _PATH),
    "paths.features": ("build/features.arrow", _PATH),
    "paths.base_photos": ("build/base_photos.parquet", _PATH),
    "paths.left_out": ("build/left_out.parquet", _PATH),
    "paths.base": ("models/base.npz", _PATH),
    "paths.head": ("models/head.npz", _PATH),
    "paths.model": ("models/model.npz", _PATH),
    "paths.onnx": ("models/model.onnx", _PATH),
    "paths.onnx_int8": ("models/model.int8.onnx", _PATH),
    "paths.candidates": ("models/candidates", _PATH),
    "paths.reports": ("reports", _PATH),
    "paths.receipts": ("receipts", _PATH),
    "paths.expectations": ("expectations", _PATH),
    "promote.gto": (None, "tag the commit by hand; docs/model_file.md has the two commands"),
}
_told: set[Path] = set()  # files of which this process has told


def without_retired(path: Path, contents: Any) -> Any:
    """Return the contents of params.yaml without retired settings; say once, on standard error, which it has.

    Args:
        path: of the file.
        contents: as YAML has them, of any type.
    """
    if not isinstance(contents, dict):
        return contents
    kept, lines, same = dict(contents), [], []
    for key, (value, advice) in RETIRED.items():
        section, _, name = key.partition(".")
        if not isinstance(kept.get(section), dict) or name not in kept[section]:
            continue
        given = kept[section][name]
        kept[section] = {other: each for other, each in kept[section].items() if other != name}
        if given == value:
            same.append(key)
        else:
            lines.append(f"  {key}: {value} holds, and no longer yours: {advice}.")
    if (lines or same) and path.resolve() not in _told:
        _told.add(path.resolve())
        if same:
            lines.append(f"  with the value that holds anyway; remove them: {', '.join(same)}.")
        print("\n".join([f"{path} has settings that are none any more:", *lines]), file=sys.stderr)
    return kept
