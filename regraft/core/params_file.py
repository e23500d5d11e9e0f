"""Reading params.yaml: every setting is checked before anything runs, and what is wrong is named by its full key."""

import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.addresses import without_addresses
from regraft.core.config import Params, with_budget
from regraft.core.errors import InvalidParams
from regraft.core.files import refuse_special

# By key: the value that holds now, and what to do if another one is wanted.
_PATH = "it has one place now; move the file there, or remove the key"
_COLOUR = "brightness, contrast and saturation have one setting, preprocess.augment_colour"
_CONSTANT = "it is a constant now; remove the key"
_CHECK = "say how severe the check is instead, for instance check_features.leaks: note"
_HEAD = "it was of heads of kind mlp; train_head.kind is linear or classic"
_LOOP = "it is a constant of regraft/training"
_SUITE = "change the expectation of that name in expectations/photos.json"
_WARM = "it is a constant of regraft/training/fine_tune.py; fine_tune.renew_after says when a new base is trained"
_MEASURE = "it is a constant of tasks/measure.py"
_GATE = "it is a constant of regraft/production/gate/rule.py, whose error rates docs/gate.md has"
_DRIFT = "it is a constant of regraft/production/prediction_drift.py; score.drift is off, note or warn"
# Settings that have another name now.
_MOVED = {"promote.given_up": "promote.retired_classes", "score.novel.severity": "score.drift"}
RETIRED: dict[str, tuple[Any, str]] = {
    "nights.keep_reports": (30, _CONSTANT),
    "machine.photo_spool": (10.0, "it is a constant of regraft/photos/elsewhere.py"),
    "machine.shared_mirror": (False, "a run fetches the features that it needs; remove the key"),
    "machine.remote_timeout": (30.0, "the libraries of buckets have time limits of their own; remove the key"),
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
    "export_onnx.calibrate": (True, "files are always calibrated; a temperature of 1 is used where none is better"),
    "export_onnx.prototype_images": (32, _CONSTANT),
    "export_onnx.parity_images": (32, _CONSTANT),
    "export_onnx.tolerance": (0.002, _CONSTANT),
    "quantise.max_gap": (0.6, _CONSTANT),
    "quantise.images": (4000, _CONSTANT),
    "quantise.calibration_images": (128, _CONSTANT),
    "validate_data.unusual": (3.5, _SUITE),
    "validate_data.some_images": ("error", _SUITE),
    "validate_data.two_classes": ("error", _SUITE),
    "validate_data.known_classes": ("error", _SUITE),
    "validate_data.present_classes": ("error", _SUITE),
    "validate_data.enough_images_per_class": ({"min": 10, "severity": "error"}, _SUITE),
    "validate_data.readable_images": ({"max": 0.05, "severity": "error"}, _SUITE),
    "validate_data.balanced_classes": ({"max": 20.0, "severity": "note"}, _SUITE),
    "validate_data.few_odd_images": ({"max": 0.05, "severity": "warn"}, _SUITE),
    "validate_data.large_enough_images": ({"min": 32, "severity": "note"}, _SUITE),
    "validate_data.right_suffix": ("note", _SUITE),
    "validate_data.usual_shape": ({"max": 3.0, "severity": "note"}, _SUITE),
    "validate_data.bright_enough": ({"min": 0.05, "severity": "note"}, _SUITE),
    "validate_data.not_too_bright": ({"max": 0.95, "severity": "note"}, _SUITE),
    "validate_data.enough_contrast": ({"min": 0.02, "severity": "note"}, _SUITE),
    "validate_data.sharp_enough": ({"min": 5.0, "severity": "note"}, _SUITE),
    "validate_data.enough_information": ({"min": 0.5, "severity": "note"}, _SUITE),
    "validate_data.no_copies": ("note", _SUITE),
    "validate_data.no_near_copies": ("note", _SUITE),
    "validate_data.one_label_per_group": ("note", _SUITE),
    "validate_data.no_copies_across_splits": ("warn", _SUITE),
    "validate_data.no_new_classes": ("warn", _SUITE),
    "validate_data.no_vanished_classes": ("warn", _SUITE),
    "validate_data.class_shares_as_before": ({"max": 0.25, "severity": "warn"}, _SUITE),
    "validate_data.new_class_shares_as_before": ("note", _SUITE),
    "validate_data.statistics_as_before": ({"max": 0.25, "severity": "warn"}, _SUITE),
    "cache_features.copied_rows": (100_000, "it is a constant of tasks/cache_features.py"),
    "check_features.max_photos": (50_000, _CHECK),
    "check_features.leaks.expected": (0.1, _CHECK),
    "check_features.leaks.max": (0.02, _CHECK),
    "check_features.label_errors.max": (0.05, _CHECK),
    "check_features.outliers.distance": (3.0, _CHECK),
    "check_features.outliers.max": (0.02, _CHECK),
    "check_features.drift.significance": (0.001, _CHECK),
    "train_head.hidden_units": (512, _HEAD),
    "train_head.activation": ("relu", _HEAD),
    "train_head.dropout": (0.2, "it is a constant of regraft/training/heads.py"),
    "train_head.learning_rate": ([0.001, 0.003], _HEAD),
    "train_head.weight_decay": ([0.001, 0.1], _HEAD),
    "train_head.batch_size": (64, _HEAD),
    "train_head.epochs": (100, "the search for a linear head ends by itself"),
    "train_head.patience": (12, _HEAD),
    "train_head.max_photos": (100_000, "it is a constant of regraft/training/heads.py"),
    "fine_tune.layer_decay": (1.0, "choose fewer layers by fine_tune.layers"),
    "fine_tune.weight_decay": (0.01, _LOOP),
    "fine_tune.label_smoothing": (0.05, _LOOP),
    "fine_tune.batch_size": (32, _LOOP),
    "fine_tune.warm_epochs": (2, _WARM),
    "fine_tune.warm_rate": (0.03, _WARM),
    "fine_tune.replay": (8, _WARM),
    "fine_tune.replay_per_class": (10, _WARM),
    "preprocess.max_left_out": (0.1, "it is a constant of regraft/photos/counts.py"),
    "preprocess.augment_max_stretch": (1.33, "it is a constant of regraft/photos/views.py"),
    "preprocess.augment_brightness": (0.2, _COLOUR),
    "preprocess.augment_contrast": (0.2, _COLOUR),
    "preprocess.augment_saturation": (0.2, _COLOUR),
    "measure.photo": ([640, 480], _MEASURE),
    "measure.repeats": (200, _MEASURE),
    "measure.robustness_images": (200, _MEASURE),
    "measure.robustness_side": (448, _MEASURE),
    "report.photos": (24, "it is a constant of regraft/reports/sources.py"),
    "evaluate.max_photos": (20_000, "it is a constant of regraft/photos/sample.py"),
    "evaluate.calibration_bins": (15, "it is a constant of tasks/evaluate.py"),
    "promote.alpha_harm_chosen": (0.005, _GATE),
    "promote.alpha_margin_chosen": (0.5, _GATE),
    "promote.min_photos": (30, _GATE),
    "promote.max_relabelled": (0.02, _GATE),
    "score.output": ("build/scores.parquet", _PATH),
    "score.drift_photos": (200, _DRIFT),
    "score.drift_days": (7.0, _DRIFT),
    "score.significance": (0.001, _DRIFT),
    "score.class_shares": ({"max": 0.25, "severity": "warn"}, _DRIFT),
    "score.statistics": ({"max": 0.25, "severity": "warn"}, _DRIFT),
    "score.novel": ({"max": 0.05}, _DRIFT),
    "score.unsure": ({"max": 0.1, "severity": "warn"}, _DRIFT),
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
    lines, same = [], []
    kept = _moved(contents, lines)
    for key, (value, advice) in RETIRED.items():
        *sections, name = key.split(".")
        section: Any = kept
        for each in sections:
            section = section.get(each) if isinstance(section, dict) else None
        if not isinstance(section, dict) or name not in section:
            continue
        if section.pop(name) == value:
            same.append(key)
        else:
            lines.append(f"  {key}: {value} holds, and no longer yours: {advice}.")
        if len(sections) == 2 and list(section) == ["severity"]:
            kept[sections[0]][sections[1]] = section["severity"]
        if not section and sections[0] not in Params.model_fields:  # all of its settings are constants
            del kept[sections[0]]
    if (lines or same) and path.resolve() not in _told:
        _told.add(path.resolve())
        if same:
            lines.append(f"  with the value that holds anyway; remove them: {', '.join(same)}.")
        print("\n".join([f"{path} has settings that are none any more:", *lines]), file=sys.stderr)
    return kept


def _moved(contents: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    """Return a copy of the contents of params.yaml in which settings have the names of today; `lines` names them."""
    moved = deepcopy(contents)
    for before, now in _MOVED.items():
        *sections, name = before.split(".")
        section: Any = moved
        for each in sections:
            section = section.get(each) if isinstance(section, dict) else None
        if isinstance(section, dict) and name in section:
            target, key = now.split(".")
            moved[target].setdefault(key, section.pop(name))
            lines.append(f"  {before}: it is {now} now, with the same value; rename it.")
    return moved


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    It is read by ruamel as DVC reads it: PyYAML takes `1e-5` for text and `no` for False. Paths of the project are
    checked for pipes and devices, since libraries and DVC would wait for them; photos and the store are opened in a way
    that does not.

    Raises:
        InvalidParams: the file is missing or not YAML, a key is missing, unknown or misspelt, or a value has the wrong
            type or range. The message names every such key, what was expected and what was found.
        RegraftError: a named pipe, a socket or a device lies where a file of ours belongs.
    """
    refuse_special(path)
    try:
        contents = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidParams(f"{path} does not exist. Run this in the project's root, or restore it from git.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InvalidParams(f"{path} is not valid YAML: {_cause(error)}. Fix that line.") from None
    try:
        params = Params.model_validate(with_budget(without_retired(path, contents)))
    except ValidationError as error:
        raise InvalidParams(_message(path, _lines(error.errors()))) from None
    if params.preprocess.val_share + params.preprocess.test_share >= 1:
        line = (
            f"  preprocess: expected val_share + test_share below 1, so that images are left to train on. "
            f"Found: {params.preprocess.val_share} + {params.preprocess.test_share}."
        )
        raise InvalidParams(_message(path, [line]))
    own = [params.paths.production, params.paths.candidates, *params.paths.constants().values()]
    refuse_special(*(path.parent / place for place in own))
    return params


def _cause(error: YAMLError | UnicodeDecodeError) -> str:
    """What is wrong, and in which line; the line itself may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    what = str(getattr(error, "problem", None) or error).partition(" with value ")[0]  # of a key that is there twice
    return " ".join(without_addresses(what).split()) + (f" in line {mark.line + 1}" if mark else "")


def _message(path: Path, lines: list[str]) -> str:
    return "\n".join([f"{path} has {len(lines)} setting(s) to fix:", *lines])


def _lines(problems: list[Any]) -> list[str]:
    """One line per key: what was expected, what was found, what to do."""
    lines: dict[str, str] = {}
    for problem in problems:
        section, known = _place(problem["loc"])
        key = ".".join(known) or "params.yaml"
        if problem["type"] == "extra_forbidden":
            key = ".".join([*known, str(problem["loc"][-1])])
            expected = ", ".join(section.model_fields)
            lines[key] = f"  {key}: unknown key. Expected one of: {expected}. Remove it or correct its spelling."
        elif problem["type"] == "missing":
            lines[key] = f"  {key}: missing. Add it; the project's own params.yaml says what it does."
        else:
            expected = re.sub(r"^(Value error, )?(Input should be |must be )?", "", problem["msg"])
            if problem["type"] == "model_type":  # whose own text names a class
                expected = f"the keys {', '.join(section.model_fields)} with their values"
            before = lines[key].partition(". Found")[0] + " or " if key in lines else f"  {key}: expected "
            # A password that somebody wrote into an address must not reach a log either.
            found = "(not shown)" if key == "machine.shared_store" else without_addresses(repr(problem["input"]))
            lines[key] = f"{before}{expected}. Found: {found}."
    return list(lines.values())


def _place(location: tuple[Any, ...]) -> tuple[type[BaseModel], list[str]]:
    """The section that a problem is in, and the keys that lead there, with that of the value if it is a known one.

    Pydantic adds the alternative's type to the location of a union, and the position to that of a list; the keys of
    params.yaml are all that a person needs.
    """
    section: type[BaseModel] = Params
    known = []
    for part in location:
        if part not in section.model_fields:
            break
        known.append(str(part))
        inner = section.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        section = inner
    return section, known
