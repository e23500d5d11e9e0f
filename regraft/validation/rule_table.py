"""The expectations about a data folder as one table, in the order in which they are reported.

Each has the name of its setting in `validate_data`, which says how severe it is and what its limit is.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from regraft.core.config import Severity


class Given(Enum):
    """What an argument in the table is replaced with."""

    LIMIT = "the limit of params.yaml, or where the folder's own is beyond it, that one"
    REST = "one less the limit"
    CLASSES = "validate_data.classes"
    FORMER_CLASSES = "the classes of the model in production"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation, with the words that a person reads."""

    name: str
    table: str  # a key of `regraft.validation.checks.build_tables`
    expected: str  # in the table: {limit} stands for the limit of params.yaml
    advice: str
    type: str  # of the expectation, as Great Expectations calls it
    arguments: dict[str, Any] = field(default_factory=dict)
    severity: Severity = "warn"
    together: str | None = None  # column whose equal values say which offenders belong together
    source: str | None = None  # where it is written, if it is a user's own
    note: str = ""  # how many values are beyond the limit of params.yaml and usual in this folder

    @property
    def columns(self) -> list[str]:
        """The columns that it is about."""
        single = [self.arguments[name] for name in ("column", "column_A", "column_B") if name in self.arguments]
        return [*single, *self.arguments.get("column_list", [])]


_ROWS = "expect_table_row_count_to_be_between"
_BETWEEN = "expect_column_values_to_be_between"
_IN_SET = "expect_column_values_to_be_in_set"
_AT_LEAST = "expect_column_pair_values_a_to_be_greater_than_b"
_UNIQUE = "expect_column_values_to_be_unique"
_LOOK = "Look at the files that validation.json names; they are used."
_MEANT = "If this was meant, do nothing: the next model that is promoted brings its own data."


def _rule(name: str, table: str, type: str, words: tuple[str, str], **arguments: Any) -> Rule:
    """A row of the table; `words` are what is expected, and what to do."""
    together = arguments.pop("together", None)
    return Rule(name, table, *words, type=type, arguments=arguments, together=together)


_CLASSES = [
    _rule(
        "some_images",
        "images",
        _ROWS,
        ("at least one file that is an image", "Put photos into the data folder, one folder per class."),
        min_value=1,
    ),
    _rule(
        "two_classes",
        "usable_classes",
        _ROWS,
        ("at least two classes with usable images", "Add a folder of photos for each further class."),
        min_value=2,
    ),
    _rule(
        "known_classes",
        "images",
        _IN_SET,
        (
            "every label among validate_data.classes",
            "Correct the name of the folder or the label, or add the class to validate_data.classes.",
        ),
        column="label",
        value_set=Given.CLASSES,
    ),
    _rule(
        "present_classes",
        "wanted_classes",
        _BETWEEN,
        (
            "usable images of each of validate_data.classes",
            "Add images of these classes, or remove them from validate_data.classes.",
        ),
        column="images",
        min_value=1,
    ),
    _rule(
        "readable_images",
        "images",
        _IN_SET,
        (
            "at most {limit:.1%} of the images unusable",
            "Replace or remove the files that validation.json names, or raise validate_data.readable_images.max.",
        ),
        column="readable",
        value_set=[True],
        mostly=Given.REST,
    ),
    _rule(
        "enough_images_per_class",
        "classes",
        _BETWEEN,
        (
            "at least {limit:g} usable images in every class",
            "Add images of these classes, remove the classes, or lower validate_data.enough_images_per_class.min.",
        ),
        column="images",
        min_value=Given.LIMIT,
    ),
    _rule(
        "balanced_classes",
        "classes",
        _BETWEEN,
        (
            "no class more than {limit:g} times smaller than the largest",
            "Figures of small classes are uncertain; add images of them if you can.",
        ),
        column="times_smaller",
        max_value=Given.LIMIT,
    ),
]

_PHOTOS = [
    _rule(
        "few_odd_images",
        "images",
        _IN_SET,
        (
            "at most {limit:.1%} of the images beyond a limit on single photos, or under two labels, they or their "
            "near-duplicates",
            "Look at the photos that validation.html shows: many are dark, blurred, tiny or contradict each other.",
        ),
        column="odd",
        value_set=[False],
        mostly=Given.REST,
    ),
    _rule(
        "large_enough_images",
        "images",
        _BETWEEN,
        ("a shorter side of at least {limit:g} pixels", "Tiny images are enlarged, which adds no detail."),
        column="shorter_side",
        min_value=Given.LIMIT,
    ),
    _rule(
        "right_suffix",
        "images",
        _IN_SET,
        (
            "names that end as their content does",
            "The content decides and the files are used, but other programs may stumble: rename them.",
        ),
        column="suffix_is_right",
        value_set=[True],
    ),
    _rule(
        "usual_shape",
        "images",
        _BETWEEN,
        (
            "a longer side of at most {limit:g} times the shorter one",
            "The network sees the centre square: crop these to what they show.",
        ),
        column="aspect_ratio",
        max_value=Given.LIMIT,
    ),
    _rule(
        "bright_enough",
        "images",
        _BETWEEN,
        ("a mean grey value of at least {limit:g} (0 is black)", _LOOK),
        column="brightness",
        min_value=Given.LIMIT,
    ),
    _rule(
        "not_too_bright",
        "images",
        _BETWEEN,
        ("a mean grey value of at most {limit:g} (1 is white)", _LOOK),
        column="brightness",
        max_value=Given.LIMIT,
    ),
    _rule(
        "enough_contrast",
        "images",
        _BETWEEN,
        ("grey values that spread by at least {limit:g}", _LOOK),
        column="contrast",
        min_value=Given.LIMIT,
    ),
    _rule(
        "sharp_enough",
        "images",
        _BETWEEN,
        ("edges: a variance of the Laplacian of at least {limit:g}", _LOOK),
        column="sharpness",
        min_value=Given.LIMIT,
    ),
    _rule(
        "enough_information",
        "images",
        _BETWEEN,
        ("grey values with an entropy of at least {limit:g} bits", _LOOK),
        column="entropy",
        min_value=Given.LIMIT,
    ),
]

_COPIES = [
    _rule(
        "no_copies",
        "images",
        _UNIQUE,
        ("every file only once", "Copies under one label count once; they are harmless."),
        column="copy_of",
        together="digest",
    ),
    _rule(
        "no_near_copies",
        "images",
        _BETWEEN,
        (
            "every photo only once",
            "Near-duplicates add little; keep the best one. They stay in one split unless you gave the splits.",
        ),
        column="files_of_group",
        max_value=1,
        together="near_group",
    ),
    # Its severity and advice are those of on_label_conflict.
    _rule(
        "one_label_per_image",
        "images",
        _IN_SET,
        ("no file under two labels", ""),
        column="conflict",
        value_set=[False],
        together="digest",
    ),
    _rule(
        "one_label_per_group",
        "images",
        _BETWEEN,
        (
            "no near-duplicates under different labels",
            "Decide which label is right and remove or move the others.",
        ),
        column="labels_of_group",
        max_value=1,
        together="near_group",
    ),
    _rule(
        "no_copies_across_splits",
        "images",
        _BETWEEN,
        (
            "no photo, near-duplicate or group in two of the splits that you gave",
            "What val or test shows is not trained on: keep the photos of each group in one split.",
        ),
        column="splits_of_group",
        max_value=1,
        together="group",
    ),
]

_PRODUCTION = [
    _rule(
        "no_new_classes",
        "usable_classes",
        _IN_SET,
        ("only classes that the model in production was trained on", _MEANT),
        column="label",
        value_set=Given.FORMER_CLASSES,
    ),
    _rule(
        "no_vanished_classes",
        "former_classes",
        _BETWEEN,
        ("every class that the model in production was trained on", _MEANT),
        column="images",
        min_value=1,
    ),
    _rule(
        "class_shares_as_before",
        "drift_of_classes",
        _AT_LEAST,
        (
            "a population stability index of at most {limit:g}, or of chance, of the classes' shares in all photos "
            "against the data of the model in production, and of the anchor",
            _MEANT,
        ),
        column_A="limit",
        column_B="psi",
        or_equal=True,
    ),
    _rule(
        "new_class_shares_as_before",
        "drift_of_new_classes",
        _AT_LEAST,
        (
            "the same of the photos that joined since: as many of each class as there were",
            "Nothing, if photos come class by class. Otherwise find out why they are other ones than before.",
        ),
        column_A="limit",
        column_B="psi",
        or_equal=True,
    ),
    _rule(
        "statistics_as_before",
        "drift_of_statistics",
        _AT_LEAST,
        (
            "a population stability index of at most {limit:g}, or of chance, of each figure of the photos, class by "
            "class, against the data of the model in production, and of the anchor",
            _MEANT,
        ),
        column_A="limit",
        column_B="psi",
        or_equal=True,
    ),
]

RULES = (*_CLASSES, *_PHOTOS, *_COPIES, *_PRODUCTION)
OF_NAMED_CLASSES = {"known_classes", "present_classes"}  # checked where validate_data.classes names any
OF_PRODUCTION = {rule.name for rule in _PRODUCTION}  # checked where it is known what that model was trained on
ON_LABEL_CONFLICT = {
    "drop": "None of these files is used: decide which label is right and remove the other copies.",
    "keep": "All of these files are used: decide which label is right and remove the other copies.",
    "error": "Decide which label is right and remove the other copies, or change validate_data.on_label_conflict.",
}
