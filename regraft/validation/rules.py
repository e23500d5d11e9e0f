"""The expectations about a data folder that params.yaml asks for, in the order in which they are reported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.config import Severity, ValidateData

_ROWS = "expect_table_row_count_to_be_between"
_BETWEEN = "expect_column_values_to_be_between"
_IN_SET = "expect_column_values_to_be_in_set"
_AT_LEAST = "expect_column_pair_values_a_to_be_greater_than_b"
_LOOK = "Look at the files that validation.json names; they are used."


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation, with the words that a person reads."""

    name: str
    table: str  # a key of `regraft.validation.checks.build_tables`
    severity: Severity
    expected: str
    advice: str
    type: str  # of the expectation, as Great Expectations calls it
    arguments: dict[str, Any] = field(default_factory=dict)
    together: str | None = None  # column whose equal values say which offenders belong together
    source: str | None = None  # where it is written, if it is a user's own

    @property
    def columns(self) -> list[str]:
        """The columns that it is about."""
        single = [self.arguments[name] for name in ("column", "column_A", "column_B") if name in self.arguments]
        return [*single, *self.arguments.get("column_list", [])]


def build_rules(settings: ValidateData, former_classes: Sequence[str] | None = None) -> list[Rule]:
    """Return the suite that the section `validate_data` of params.yaml asks for, without what is switched off.

    Args:
        settings: thresholds and severities.
        former_classes: of the model in production; without it nothing is compared with its data.
    """
    rules = [*_about_classes(settings), *_about_photos(settings), *_about_copies(settings)]
    if former_classes is not None:
        rules += _about_drift(settings, former_classes)
    return [rule for rule in rules if rule.severity != "off"]


def limits_of(settings: ValidateData) -> dict[str, tuple[float | None, float | None]]:
    """Return the lowest and highest value that a photo should have, by column of the table of images."""
    return {
        "brightness": (settings.min_brightness, settings.max_brightness),
        "contrast": (settings.min_contrast, None),
        "sharpness": (settings.min_sharpness, None),
        "entropy": (settings.min_entropy, None),
        "shorter_side": (settings.min_side, None),
        "aspect_ratio": (None, settings.max_aspect_ratio),
    }


def _about_classes(settings: ValidateData) -> list[Rule]:
    severity, readable = settings.severity, settings.max_quarantined_share
    rules = [
        Rule(
            "some_images",
            "images",
            severity.some_images,
            "at least one file that is an image",
            "Put photos into the data folder, one folder per class.",
            _ROWS,
            {"min_value": 1},
        ),
        Rule(
            "two_classes",
            "usable_classes",
            severity.two_classes,
            "at least two classes with usable images",
            "Add a folder of photos for each further class.",
            _ROWS,
            {"min_value": 2},
        ),
        Rule(
            "readable_images",
            "images",
            severity.readable_images,
            f"at most {readable:.1%} of the images unusable",
            "Replace or remove the files that validation.json names, or raise validate_data.max_quarantined_share.",
            _IN_SET,
            {"column": "readable", "value_set": [True], "mostly": 1 - readable},
        ),
        Rule(
            "enough_images_per_class",
            "classes",
            severity.enough_images_per_class,
            f"at least {settings.min_images_per_class} usable images in every class",
            "Add images of these classes, remove the classes, or lower validate_data.min_images_per_class.",
            _BETWEEN,
            {"column": "images", "min_value": settings.min_images_per_class},
        ),
        Rule(
            "balanced_classes",
            "classes",
            severity.balanced_classes,
            f"no class more than {settings.max_imbalance:g} times smaller than the largest",
            "Figures of small classes are uncertain; add images of them if you can.",
            _BETWEEN,
            {"column": "times_smaller", "max_value": settings.max_imbalance},
        ),
    ]
    if settings.classes is None:
        return rules
    named = [
        Rule(
            "known_classes",
            "images",
            severity.known_classes,
            "every label among validate_data.classes",
            "Correct the name of the folder or the label, or add the class to validate_data.classes.",
            _IN_SET,
            {"column": "label", "value_set": list(settings.classes)},
        ),
        Rule(
            "present_classes",
            "wanted_classes",
            severity.present_classes,
            "usable images of each of validate_data.classes",
            "Add images of these classes, or remove them from validate_data.classes.",
            _BETWEEN,
            {"column": "images", "min_value": 1},
        ),
    ]
    return [*rules[:2], *named, *rules[2:]]


def _about_photos(settings: ValidateData) -> list[Rule]:
    severity = settings.severity

    def rule(name: str, column: str, limits: dict[str, float], expected: str, advice: str = _LOOK) -> Rule:
        return Rule(name, "images", getattr(severity, name), expected, advice, _BETWEEN, {"column": column, **limits})

    return [
        rule(
            "large_enough_images",
            "shorter_side",
            {"min_value": settings.min_side},
            f"a shorter side of at least {settings.min_side} pixels",
            "Tiny images are enlarged, which adds no detail.",
        ),
        Rule(
            "right_suffix",
            "images",
            severity.right_suffix,
            "names that end as their content does",
            "The content decides and the files are used, but other programs may stumble: rename them.",
            _IN_SET,
            {"column": "suffix_is_right", "value_set": [True]},
        ),
        rule(
            "usual_shape",
            "aspect_ratio",
            {"max_value": settings.max_aspect_ratio},
            f"a longer side of at most {settings.max_aspect_ratio:g} times the shorter one",
            "The network sees the centre square: crop these to what they show.",
        ),
        rule(
            "bright_enough",
            "brightness",
            {"min_value": settings.min_brightness},
            f"a mean grey value of at least {settings.min_brightness:g} (0 is black)",
        ),
        rule(
            "not_too_bright",
            "brightness",
            {"max_value": settings.max_brightness},
            f"a mean grey value of at most {settings.max_brightness:g} (1 is white)",
        ),
        rule(
            "enough_contrast",
            "contrast",
            {"min_value": settings.min_contrast},
            f"grey values that spread by at least {settings.min_contrast:g}",
        ),
        rule(
            "sharp_enough",
            "sharpness",
            {"min_value": settings.min_sharpness},
            f"edges: a variance of the Laplacian of at least {settings.min_sharpness:g}",
        ),
        rule(
            "enough_information",
            "entropy",
            {"min_value": settings.min_entropy},
            f"grey values with an entropy of at least {settings.min_entropy:g} bits",
        ),
    ]


def _about_copies(settings: ValidateData) -> list[Rule]:
    severity = settings.severity
    return [
        Rule(
            "no_copies",
            "images",
            severity.no_copies,
            "every file only once",
            "Copies under one label count once; they are harmless.",
            "expect_column_values_to_be_unique",
            {"column": "copy_of"},
            together="digest",
        ),
        Rule(
            "no_near_copies",
            "images",
            severity.no_near_copies,
            "every photo only once",
            "Near-duplicates add little; keep the best one. They stay in one split unless you gave the splits.",
            _BETWEEN,
            {"column": "files_of_group", "max_value": 1},
            together="group",
        ),
        Rule(
            "one_label_per_image",
            "images",
            "error" if settings.on_label_conflict == "error" else "warn",
            "no file under two labels",
            _CONFLICT[settings.on_label_conflict],
            _IN_SET,
            {"column": "conflict", "value_set": [False]},
            together="digest",
        ),
        Rule(
            "one_label_per_group",
            "images",
            severity.one_label_per_group,
            "no near-duplicates under different labels",
            "Decide which label is right and remove or move the others.",
            _BETWEEN,
            {"column": "labels_of_group", "max_value": 1},
            together="group",
        ),
        Rule(
            "no_copies_across_splits",
            "images",
            severity.no_copies_across_splits,
            "no photo in two of the splits that you gave",
            "What val or test shows is not trained on: keep each photo in one split.",
            _BETWEEN,
            {"column": "splits_of_group", "max_value": 1},
            together="group",
        ),
    ]


_CONFLICT = {
    "drop": "None of these files is used: decide which label is right and remove the other copies.",
    "keep": "All of these files are used: decide which label is right and remove the other copies.",
    "error": "Decide which label is right and remove the other copies, or change validate_data.on_label_conflict.",
}


def _about_drift(settings: ValidateData, former_classes: Sequence[str]) -> list[Rule]:
    severity, psi = settings.severity, f"a population stability index of at most {settings.max_psi:g}, or of chance,"
    advice = "If this was meant, nothing is to be done: the next model that is promoted brings its own data."
    return [
        Rule(
            "no_new_classes",
            "usable_classes",
            severity.no_new_classes,
            "only classes that the model in production was trained on",
            advice,
            _IN_SET,
            {"column": "label", "value_set": list(former_classes)},
        ),
        Rule(
            "no_vanished_classes",
            "former_classes",
            severity.no_vanished_classes,
            "every class that the model in production was trained on",
            advice,
            _BETWEEN,
            {"column": "images", "min_value": 1},
        ),
        Rule(
            "class_shares_as_before",
            "drift_of_classes",
            severity.class_shares_as_before,
            f"{psi} of the classes' shares against the data of the model in production",
            advice,
            _AT_LEAST,
            {"column_A": "limit", "column_B": "psi", "or_equal": True},
        ),
        Rule(
            "statistics_as_before",
            "drift_of_statistics",
            severity.statistics_as_before,
            f"{psi} of each figure of the photos against the data of the model in production",
            advice,
            _AT_LEAST,
            {"column_A": "limit", "column_B": "psi", "or_equal": True},
        ),
    ]
