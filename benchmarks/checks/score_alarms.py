"""How often scoring warns of photos in which nothing has changed, and of others.

    python -m benchmarks.checks.score_alarms [DIR] [--other DIR] [--models 5] [--draws 100] [--quick]

DIR is a folder of labelled photos that are taken for alike. For each model a random third of them trains it, in a
temporary project, and it goes into production; all of DIR is scored. In a draw 50, 200 or 1,000 of the photos that the
model has not seen came in. So every warning is a false alarm. A draw of other photos has 200 of them: darkened to half,
blurred by 1 % of the longer side, of the class that the model names most, or photos of other things, from --other.
Thresholds are fixed on few photos, so alarms of one model's draws come together: the figures are means over models.

Before that, without any photo: a threshold of novelty is found on so many val photos, as the export does, and so many
others come in, 200,000 times. How often are more of them novel than the limit says, and than a binomial test would
say, which takes the threshold for exact? Both without the least share of 5 % that is worth a look.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import binom

from benchmarks.checks.warning_nights import FAULTS
from benchmarks.support.projects import HEAD_ONLY, REGRAFT, Project, describe_machine, run, temporary_project
from regraft.core.config import Params
from regraft.core.files import read_json
from regraft.core.params_file import load_params
from regraft.photos.images import load_rgb
from regraft.production.prediction_drift import Trained, latest_photos, measure_drift, most_novel
from regraft.production.records import Records
from regraft.production.scores import read_scores
from regraft.serving.thresholds import rank_of, share_of
from tasks.score_photos import OUTPUT

_DAYS = (50, 200, 1000)  # photos that came in
_VAL = (40, 200, 1000)  # photos on which a threshold is found
_SIMULATED, _CHANCE = 200_000, 0.001 / 3
_OTHER = 200  # in each draw of what is to be found
_EACH = 5  # one draw in so many is of them
_OF_CLASS = "one class"
_NOW = datetime.now(UTC)


def draws_of_model(project: Project, random: np.random.Generator, draws: int) -> Iterator[dict[str, Any]]:
    """Yield what warned in each draw."""
    params = load_params(project.root / "params.yaml")
    trained = _trained(project.root, params)
    model = Records(project.root / params.paths.production).digest
    assert model
    assert trained.reference
    scores = read_scores(project.root / OUTPUT)
    rows = latest_photos(scores.assign(first_seen=_NOW), model, _NOW, params.validate_data.max_hash_distance)
    rows = rows[~rows.sha256.isin(set(trained.reference.rows.digest))].reset_index(drop=True)
    kinds = rows.path.str.partition("/")[0]
    healthy = rows[kinds == "healthy"]
    for count in _DAYS:
        for _ in range(draws):
            yield {
                "what": f"healthy, {count}",
                **_alarms(healthy, min(count, len(healthy) // 2), trained, random),
            }
    others = {kind: rows[kinds == kind] for kind in sorted(set(kinds) - {"healthy"})}
    others[_OF_CLASS] = healthy[healthy.label == healthy.label.mode()[0]]
    for what, photos in others.items():
        for _ in range(-(-draws // _EACH)):
            yield {"what": what, **_alarms(photos, min(_OTHER, len(photos)), trained, random)}


def simulate_novelty(chance: float, draws: int) -> Iterator[dict[str, Any]]:
    """Yield how often novelty warns by chance alone, of photos whose novelty is distributed as on val."""
    random = np.random.default_rng(0)
    for val in _VAL:
        for count in _DAYS:
            # Novelties are ranks: uniform, whatever their distribution. The share above the k-th largest is Beta.
            small = np.sort(random.random((min(draws, 20_000_000 // val), val)), axis=1)
            above = 1 - small[:, -rank_of(val)]
            novel = random.binomial(count, np.resize(above, draws))
            exact, naive = most_novel(count, val, chance), binom(count, share_of(val)).isf(chance)
            shares = {"limit": float((novel > exact).mean()), "binomial": float((novel > naive).mean())}
            yield {"val": val, "came in": count, **shares}


def _alarms(photos: pd.DataFrame, count: int, trained: Trained, random: np.random.Generator) -> dict[str, bool]:
    drawn = photos.iloc[random.permutation(len(photos))[:count]].reset_index(drop=True)
    figures = measure_drift(drawn, trained).figures
    found = {name: any(each.quantity == name and each.has_moved for each in figures) for name in ("novel", "unsure")}
    found["classes"] = any(each.quantity == "class shares" and each.has_moved for each in figures)
    found["statistics"] = any(each.has_moved for each in figures if each.quantity not in (*found, "class shares"))
    return {**found, "any": any(found.values())}


def _trained(root: Path, params: Params) -> Trained:
    reference, words = Records(root / params.paths.production).find_reference()
    test = read_json(root / params.paths.reports / "abstention.json")
    return Trained(reference, words, (test["images"] - test["answered"], test["images"]))


def _write_incoming(photos: list[Path], other: Path | None, folder: Path) -> None:
    for number, path in enumerate(photos):
        target = folder / "healthy" / f"{number:06}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("dark", "blur"):
        (folder / name).mkdir()
        for number, path in enumerate(photos[: 2 * _OTHER]):
            FAULTS[name](Image.fromarray(load_rgb(path))).save(folder / name / f"{number:06}.jpg", quality=92)
    if other:
        (folder / "other things").mkdir()
        for number, path in enumerate(_shuffled(_photos_in(other))[: 2 * _OTHER]):
            shutil.copy(path, folder / "other things" / f"{number:06}{path.suffix}")


def measure(photos: Path, other: Path | None, models: int, draws: int) -> pd.DataFrame:
    """Return the share of draws in which each figure warned."""
    paths, rows = _shuffled(_photos_in(photos)), []
    with temporary_project([*HEAD_ONLY, "score.photos=incoming"]) as project:
        _write_incoming(paths, other, project.root / "incoming")
        for number in range(models):
            random = np.random.default_rng(number)
            shutil.rmtree(project.raw)
            shutil.rmtree(project.root / "models" / "production", ignore_errors=True)
            for place in random.permutation(len(paths))[: len(paths) // 3].tolist():
                (project.raw / paths[place].parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(paths[place], project.raw / paths[place].parent.name)
            for command in ("retrain", "score"):
                log = project.root.parent / "command.log"
                run([*REGRAFT, command], project.root, project.environment, log=log, accepted=(0, 2))
            rows += [{"model": number, **row} for row in draws_of_model(project, random, draws)]
            print(f"model {number + 1} of {models}", flush=True)
    by_model = pd.DataFrame(rows).groupby(["what", "model"], sort=False).mean()
    return by_model.groupby("what", sort=False).mean()


def _photos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _shuffled(paths: list[Path]) -> list[Path]:
    return [paths[place] for place in np.random.default_rng(1).permutation(len(paths))]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How often scoring warns of photos.")
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a folder of labelled photos")
    parser.add_argument("--other", type=Path, metavar="DIR", help="photos of other things")
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--draws", type=int, default=100, help="of each number of photos, with each model")
    parser.add_argument("--quick", action="store_true", help="one model, and ten draws")
    arguments = parser.parse_args()
    print(describe_machine())
    simulated = pd.DataFrame(simulate_novelty(_CHANCE, _SIMULATED))
    print(f"share of draws in which novelty warns by chance; {_CHANCE:.5f} is wanted at most:")
    print(simulated.to_string(index=False, float_format=lambda share: f"{share:.5f}"))
    if arguments.folder is None:
        print(json.dumps(simulated.to_dict("records")))
        return
    models, draws = (1, 10) if arguments.quick else (arguments.models, arguments.draws)
    shares = measure(arguments.folder, arguments.other, models, draws)
    print(shares.to_string(float_format=lambda share: f"{share:.3f}"))
    print(json.dumps({"models": models, "draws": draws, "shares": shares.round(4).to_dict("index")}))


if __name__ == "__main__":
    main()
