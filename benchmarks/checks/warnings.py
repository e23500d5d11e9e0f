"""Warnings: how often checks warn of healthy photos, and how often they find what is wrong.

    python -m benchmarks.checks.warnings DIR [DIR ...] [--draws 200] [--work FOLDER] [--quick]

Each DIR is a folder of labelled photos that are taken for healthy: clothing10, trashnet5, digits and solar cells, which
`regraft table demo:digits --folder DIR` writes. In a draw a quarter, half or all of them are there. Of these, groups of
near-duplicates together, 5 in 75 are new since the model in production. Nothing has changed, so every warning of drift
is a false alarm. In each fourth draw the photos are compared as well with the anchor, which
knew two thirds of the others.

Power is the share of draws in which as many new photos are found that are darkened to half, blurred by 1 % of the
longer side or cropped to 95 %; of one class; of a class that was not there; or one session: neighbours in the order of
their names. `slow` are twelve nights, with the whole folder: the share of dark photos among the new ones rises evenly
to all of them, and each night's model is promoted. Then the checks on the folder as it is: splits are drawn at random,
and copies cropped to 95 % stand in test. FOLDER keeps features between calls.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.checks.folder_checks import check_folder
from benchmarks.checks.warning_nights import (
    FAULTS,
    Night,
    Photos,
    alarms,
    healthy_night,
    prepare,
    together,
    whole_groups,
    with_labels,
    write_faults,
)
from benchmarks.support.projects import ROOT, describe_machine
from regraft.core.config import Params
from regraft.core.params_file import load_params

_SIZES = {"quarter": 0.25, "half": 0.5, "whole": 1.0}
_NEW, _APPROVED = 5 / 75, 2 / 3
_EACH, _FEW, _NIGHTS = 4, 25, 12  # one draw in four, one in 25, nights in a row
_DRIFT = ["figures", "features", "of anchor"]  # what may not warn of healthy photos


def false_alarms(params: Params, photos: Photos, draws: int) -> Iterator[dict[str, Any]]:
    """Yield what warns of healthy photos."""
    for size, share in _SIZES.items():
        for draw in range(draws):
            night = healthy_night(whole_groups(photos, share, np.random.default_rng(draw)), _NEW)
            anchor = night.before.part(np.arange(round(_APPROVED * len(night.before.rows))))
            with_all = draw % _EACH == 0
            row = {"size": size, **alarms(params, night, anchor if with_all else None)}
            yield row | {"any": any(row[name] for name in _DRIFT)}


def power(params: Params, photos: Photos, faulty: Photos, draws: int) -> Iterator[dict[str, Any]]:
    """Yield what warns of photos with which something is wrong, or of which a person may wonder."""
    for size, share in _SIZES.items():
        for draw in range(draws):
            random = np.random.default_rng(draw)
            some = whole_groups(photos, share, random)
            for what, night in _situations(some, faulty, random):
                found = alarms(params, night)
                yield {"size": size, "situation": what, **found, "any": found["figures"] or found["features"]}
            if share == 1:
                yield {"size": size, "situation": "slow", **_slow(params, some, faulty, random)}


def _situations(photos: Photos, faulty: Photos, random: np.random.Generator) -> Iterator[tuple[str, Night]]:
    count = round(_NEW * len(photos.rows))
    for fault in FAULTS:
        of_fault = faulty.part(np.flatnonzero(faulty.rows.fault == fault))
        new = of_fault.part(random.permutation(len(of_fault.rows))[:count])
        yield fault, Night(photos.part(~photos.rows.digest.isin(set(new.rows.origin)).to_numpy()), new)
    for what, chosen in _of_one_class(photos, count, random):
        known = set(photos.rows.group.iloc[chosen])
        yield what, Night(photos.part(~photos.rows.group.isin(known).to_numpy()), photos.part(chosen))


def _of_one_class(photos: Photos, count: int, random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    label = random.choice(np.unique(photos.labels))
    of_class = np.flatnonzero(photos.labels == label)
    by_name = of_class[np.argsort(photos.rows.path.iloc[of_class].to_numpy(str), kind="stable")]
    count = min(count, len(of_class) // 2)
    start = random.integers(0, len(by_name) - count + 1)
    yield "one class", random.permutation(of_class)[:count]
    yield "one session", by_name[start : start + count]
    yield "a new class", of_class


def _slow(params: Params, photos: Photos, faulty: Photos, random: np.random.Generator) -> dict[str, bool]:
    """Nights on which the new photos get darker and darker; whatever they are, the next model knows them."""
    dark = faulty.part(np.flatnonzero(faulty.rows.fault == "dark"))
    dark = dark.part(random.permutation(len(dark.rows)))
    rest = photos.part(~photos.rows.digest.isin(set(dark.rows.origin)).to_numpy())
    each = min(2 * len(dark.rows) // (_NIGHTS + 1), len(rest.rows) // (2 * _NIGHTS))
    anchor, used, found = rest.part(np.arange(_NIGHTS * each, len(rest.rows))), 0, []
    before = anchor
    for night in range(_NIGHTS):
        darker = round(each * (night + 1) / _NIGHTS)
        new = together(
            rest.part(np.arange(night * each, (night + 1) * each - darker)), dark.part(np.arange(used, used + darker))
        )
        found.append(alarms(params, Night(before, new), anchor if night else None))
        used, before = used + darker, together(before, new)
    against_production = any(each_night["figures"] or each_night["features"] for each_night in found)
    return {"any": against_production, "of anchor": any(each_night["of anchor"] for each_night in found)}


def measure(raw: Path, work: Path, draws: int) -> dict[str, pd.DataFrame]:
    """Return the shares of draws with a warning: of healthy photos, of faulty ones, and of the folder as it is."""
    photos = prepare(work / raw.name, raw, [])
    faults = work / f"{raw.name}-faults"
    if not faults.is_dir():
        write_faults(photos, raw, faults)
    faulty = prepare(work / f"{raw.name}-of-faults", faults, ["validate_data.max_hash_distance=null"])
    faulty = with_labels(faulty, photos)
    params, few = load_params(ROOT / "params.yaml"), -(-draws // _FEW)
    healthy = pd.DataFrame(false_alarms(params, photos, draws)).groupby("size", sort=False).mean()
    found = pd.DataFrame(power(params, photos, faulty, few)).groupby(["situation", "size"], sort=False).mean()
    folder = check_folder(params, photos, faulty.part(np.flatnonzero(faulty.rows.fault == "crop")), _SIZES, few)
    return {"healthy": healthy, "power": found, "folder": pd.DataFrame(folder).groupby("size", sort=False).mean()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checks.warnings",
        description="How often checks warn of healthy photos, and find faults.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="labelled photos, as for data/raw")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--work", type=Path, help="keeps features between calls; a temporary folder without it")
    parser.add_argument("--quick", action="store_true", help="eight draws")
    arguments = parser.parse_args()
    draws, shares = 8 if arguments.quick else arguments.draws, {}
    print(describe_machine())
    print(f"{draws} draws of healthy photos; the share of them in which a check warns")
    with tempfile.TemporaryDirectory(prefix="regraft-warnings-") as temporary:
        for folder in arguments.folders:
            tables = measure(folder, arguments.work or Path(temporary), draws)
            for what, table in tables.items():
                print(f"\n{folder.name}, {what}\n{table.astype(float).round(3).to_string(na_rep='')}", flush=True)
            shares[folder.name] = round(float(tables["healthy"]["any"]["whole"]), 4)
    print(json.dumps(shares))


if __name__ == "__main__":
    main()
