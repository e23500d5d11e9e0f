"""A trial: which photos are compared, and what becomes of the new model."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regraft.export.evaluation import classification_report
from regraft.production.gate.comparison import Predictions, compare, select
from regraft.production.gate.verdict import Verdict, with_evidence
from regraft.production.new_photos import Evidence
from tests.support.gate import (
    CLASSES,
    Answering,
    dataset_of,
    digest_of,
    former_of,
    gate_of,
    groups_of,
    reference_of,
)

LABELS = [CLASSES[number % 3] for number in range(300)]
PHOTOS = dataset_of(LABELS)
RIGHT = {digest_of(number): label for number, label in enumerate(LABELS)}


def wrong_on(numbers: range, named: str = "cup") -> dict[str, str]:
    """What a model names that takes some photos of other classes for one class."""
    return RIGHT | {digest_of(number): named if LABELS[number] != named else "hat" for number in numbers}


def verdict_of(
    challenger: Answering,
    champion: Answering,
    rows: Any = (),
    *,
    anchors: Any = (),
    photos: Any = PHOTOS,
    **changed: Any,
) -> Verdict:
    warnings = changed.pop("warnings", [])
    groups = changed.pop("groups", None)
    return gate_of(challenger, photos, groups, **changed).verdict(
        former_of(champion, rows), anchors, warnings=warnings, looks=changed.pop("looks", 0)
    )


# What is compared.


def test_photos_that_the_older_model_saw_are_left_out_with_their_near_duplicates() -> None:
    reference = reference_of([(0, "cup", "train"), (1, "hat", "val"), (2, "shoe", "test"), (9, "cup", "train")])
    found = select(PHOTOS.rows.head(6), groups_of({3: 9, 9: 9}), reference, (CLASSES, CLASSES))
    assert found.rows.tolist() == [2, 4, 5]
    assert found.seen == 3


def test_one_photo_of_a_group_is_compared() -> None:
    found = select(PHOTOS.rows.head(5), groups_of({0: 0, 1: 0, 2: 0, 3: 3}), None, (CLASSES, CLASSES))
    assert (found.rows.tolist(), found.near_duplicates) == ([0, 3, 4], 2)


def test_labels_that_changed_since_the_record_are_found() -> None:
    reference = reference_of([(0, "cup", "test"), (1, "cup", "test")])
    assert select(PHOTOS.rows.head(3), groups_of({}), reference, (CLASSES, CLASSES)).old_labels == {1: "cup"}


def test_names_are_compared_and_not_numbers() -> None:
    answers = Answering(RIGHT, ["shoe", "cup", "hat"])
    turned = Predictions(answers.class_names, answers.says(PHOTOS))
    found = compare(PHOTOS.rows.class_name.to_numpy(str), Predictions(CLASSES, Answering(RIGHT).says(PHOTOS)), turned)
    assert (found.b, found.c, found.n) == (0, 0, 300)
    assert found.losses == pytest.approx(0, abs=1e-6)


def test_a_new_class_alone_makes_no_log_loss_worse() -> None:
    more = Answering(RIGHT, [*CLASSES, "sock"])
    answers = Predictions(more.class_names, more.says(PHOTOS))
    found = compare(PHOTOS.rows.class_name.to_numpy(str), Predictions(CLASSES, Answering(RIGHT).says(PHOTOS)), answers)
    assert abs(found.log_loss().value) < 0.04  # 0.1 is spread over three classes in place of two


# What becomes of it.


def test_an_equal_model_is_promoted_where_the_test_set_is_large_enough() -> None:
    verdict = verdict_of(Answering(RIGHT), Answering(wrong_on(range(2))))
    assert (verdict.name, verdict.is_accepted) == ("Promoted", True)
    assert verdict.words.startswith("Promoted: a loss of 2 points or more is excluded (Tango: p = ")
    assert "On 300 test photos 2 are right only with the new model and 0 only with the one in production" in (
        verdict.words
    )


def test_warnings_of_the_run_stand_in_the_verdict() -> None:
    verdict = verdict_of(Answering(RIGHT), Answering(RIGHT), warnings=["It is dark.", "B.", "C.", "D."])
    assert (verdict.name, verdict.is_accepted) == ("Promoted with warnings", True)
    assert verdict.words.endswith("Warnings of this run: It is dark. B. C. And 1 more.")
    assert verdict.figures["warnings"] == ["It is dark.", "B.", "C.", "D."]


def test_without_a_record_of_its_training_production_is_compared_with_a_warning() -> None:
    verdict = verdict_of(Answering(RIGHT), Answering(RIGHT), None)
    assert verdict.name == "Promoted with warnings"
    assert verdict.figures["warnings"][0].startswith("It is not known what the model in production was trained on")


def test_a_worse_model_is_refused_with_its_figures() -> None:
    verdict = verdict_of(Answering(wrong_on(range(30))), Answering(RIGHT))
    assert (verdict.name, verdict.is_accepted) == ("Refused", False)
    assert "30 photos are right only with that one, 0 only with the new one" in verdict.words
    found = verdict.figures["comparison"]
    assert (found["n"], found["b"], found["c"], found["d"]) == (300, 30, 0, -0.1)
    assert found["d_low"] < -0.1 < found["d_high"] < 0


UNDECIDED = (Answering(wrong_on(range(15))), Answering(wrong_on(range(15, 30))))


@pytest.mark.parametrize(
    ("changed", "accepted"),
    [
        ({"when_undecided": "keep"}, False),
        ({"when_undecided": "promote"}, True),
        ({"when_undecided": "auto"}, True),
    ],
)
def test_what_cannot_be_decided_is_promoted_or_not_as_the_user_says(changed: dict[str, Any], accepted: bool) -> None:
    verdict = verdict_of(*UNDECIDED, **changed)
    assert (verdict.name, verdict.is_accepted) == ("Undecided", accepted)


def test_a_class_that_vanished_from_the_photos_refuses_the_model() -> None:
    there = [number for number, label in enumerate(LABELS) if label != "shoe"]
    photos = dataset_of([LABELS[number] for number in there], classes=["cup", "hat"])
    verdict = verdict_of(Answering(RIGHT, ["cup", "hat"]), Answering(RIGHT), photos=photos)
    assert verdict.name == "Refused"
    assert "today's photos lack 1 class(es) that the model in production knows: 'shoe'. A folder" in verdict.words


def test_a_class_that_was_given_up_refuses_nothing() -> None:
    there = [label for label in LABELS if label != "shoe"]
    photos = dataset_of(there, classes=["cup", "hat"])
    named = dict(zip(photos.rows.digest, there, strict=True))
    verdict = verdict_of(
        Answering(named, ["cup", "hat"], sure=0.95), Answering(named), photos=photos, retired_classes=["shoe"]
    )
    assert verdict.name == "Promoted"


def test_models_without_a_common_class_decide_nothing() -> None:
    verdict = verdict_of(Answering(RIGHT), Answering(RIGHT, ["x", "y"]), retired_classes=["x", "y"])
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert "0 photos can be compared" in verdict.words


def test_if_production_saw_every_photo_nothing_is_decided() -> None:
    rows = [(number, label, "train") for number, label in enumerate(LABELS)]
    verdict = verdict_of(Answering(RIGHT), Answering(wrong_on(range(60))), rows)
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert verdict.figures["left_out"]["seen_by_production"] == 300


def test_relabelled_photos_do_not_let_a_model_in() -> None:
    # Production learnt the old labels of 15 photos; the new model learnt the new ones, which test has as well.
    rows = [(number, "hat" if number < 45 and label == "cup" else label, "test") for number, label in enumerate(LABELS)]
    before = wrong_on(range(0))
    before |= {digest_of(number): label for number, label, _ in rows}
    verdict = verdict_of(Answering(RIGHT), Answering(before), rows, when_undecided="promote")
    assert (verdict.name, verdict.is_accepted, verdict.figures["relabelled"]) == ("Undecided", False, 15)
    asked = verdict_of(Answering(RIGHT), Answering(RIGHT), rows, when_undecided="promote")
    assert (asked.name, asked.is_accepted) == ("Undecided", False)
    assert "the labels of 15 of 300 compared photos changed" in asked.words


def test_a_few_relabelled_photos_are_judged_both_ways() -> None:
    rows = [(number, "hat" if number == 0 else label, "test") for number, label in enumerate(LABELS)]
    verdict = verdict_of(Answering(RIGHT), Answering(RIGHT), rows)
    assert (verdict.name, verdict.figures["relabelled"]) == ("Promoted", 1)


def test_the_anchor_sees_what_the_night_does_not() -> None:
    challenger, champion = Answering(wrong_on(range(16))), Answering(wrong_on(range(15)))
    assert verdict_of(challenger, champion).name == "Promoted"
    verdict = verdict_of(challenger, champion, anchors=[former_of(Answering(RIGHT))])
    assert verdict.name == "Refused"
    assert verdict.figures["anchors"]["a" * 64]["b"] == 16


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ({"accuracy": 0.99}, "its accuracy on 300 test photos is 0.9000, below promote.floors.accuracy, 0.99"),
        ({"recall": 0.9}, "recall of 'hat' on its 100 test photos is 0.850, below promote.floors.recall, 0.9"),
        ({"megabytes": 0.0001}, "MB, above promote.floors.megabytes, 0.0001"),
    ],
)
def test_a_model_below_a_floor_is_refused_also_as_the_first_one(floors: dict[str, float], said: str) -> None:
    all_floors = {"accuracy": None, "recall": None, "milliseconds": None, "megabytes": None, **floors}
    model = Answering(RIGHT | dict.fromkeys(list(RIGHT)[:45], "cup"))
    verdict = gate_of(model, PHOTOS, floors=all_floors).verdict(None, (), warnings=[], looks=0)
    assert (verdict.name, said in verdict.words) == ("Refused", True), verdict.words
    assert said in verdict_of(model, model, floors=all_floors).words


def test_the_first_model_is_promoted() -> None:
    verdict = gate_of(Answering(RIGHT), PHOTOS).verdict(None, (), warnings=[], looks=0)
    assert verdict.words == (
        "Promoted: first model in production: accuracy 100.0% (98.7% to 100.0%) on 300 test photos. 300 test photos "
        "are enough to show that an equal model is harmless; that takes 133."
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Below that a new model goes in unless it looks worse"),
        ({"when_undecided": "keep"}, "Below that production stays unless a new model is clearly better"),
        ({"margin": 0.04}, "From 65 compared test photos on (some 360 photos in all)"),
    ],
)
def test_the_first_verdict_says_from_how_many_photos_on_models_go_in_and_what_happens_below(
    changed: dict[str, Any], said: str
) -> None:
    photos = dataset_of(LABELS, ["test"] * 54 + ["train"] * 246)
    verdict = gate_of(Answering(RIGHT), photos, **changed).verdict(None, (), warnings=[], looks=0)
    assert said in verdict.words
    assert verdict.figures["outlook"] in verdict.words
    if not changed:
        assert "From 133 compared test photos on (some 740 photos in all)" in verdict.words


def test_after_an_alarm_of_new_photos_nothing_is_promoted_by_itself() -> None:
    accepted = verdict_of(Answering(RIGHT), Answering(RIGHT))
    alarm = with_evidence(accepted, Evidence(40, 8, 0, "c" * 64))
    assert (accepted.is_accepted, alarm.name, alarm.is_accepted) == (True, "Undecided", False)
    assert "`regraft promote --rollback --to cccccccccccc` is advised. So a person decides." in alarm.words
    assert with_evidence(accepted, Evidence(40, 4, 4, "c" * 64)).name == "Promoted"


def test_of_the_first_model_the_gate_says_the_same_interval_as_the_report_of_its_test_photos() -> None:
    model, pairs = Answering(wrong_on(range(60))), {number: number - number % 2 for number in range(300)}
    verdict = gate_of(model, PHOTOS, pairs).verdict(None, (), warnings=[], looks=0)
    report = classification_report(
        PHOTOS.rows.class_index.to_numpy(), model.says(PHOTOS), groups_of(pairs).group.to_numpy(), bins=5
    )
    assert {name: report[name] for name in verdict.figures["challenger"]} == verdict.figures["challenger"]


@pytest.mark.parametrize("model", [Answering(RIGHT), UNDECIDED[0]])
def test_where_a_person_approves_nothing_is_promoted_by_itself(model: Answering) -> None:
    verdict = verdict_of(model, UNDECIDED[1], mode="approve", when_undecided="promote")
    assert (verdict.name, verdict.is_accepted) == ("Waiting for approval", False)


def test_where_a_person_approves_harm_is_refused_all_the_same() -> None:
    assert verdict_of(Answering(wrong_on(range(30))), Answering(RIGHT), mode="approve").name == "Refused"


@dataclass
class Shifted(Answering):
    """A model that says of 300 photos what it learnt, or that for classes of other shares in use."""

    def says(self, photos: Any) -> np.ndarray:
        random = np.random.default_rng(0)
        learnt = {
            digest: random.dirichlet([9 if name == label else 1 for name in CLASSES]) for digest, label in RIGHT.items()
        }
        logits = np.log([learnt[digest] for digest in photos.rows.digest])
        logits += json.loads(self.metadata.get("logit_shift", "0"))
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


RARE_CUPS = {
    "logit_shift": json.dumps([-4.0, 1.0, 1.0]),
    "class_shares": json.dumps({"cup": 0.02, "hat": 0.49, "shoe": 0.49}),
}


@pytest.mark.parametrize(("before", "now"), [({}, RARE_CUPS), (RARE_CUPS, {}), (RARE_CUPS, RARE_CUPS)])
def test_shares_of_classes_in_use_that_are_set_or_changed_alone_are_no_harm(
    before: dict[str, str], now: dict[str, str]
) -> None:
    verdict = verdict_of(
        Shifted(RIGHT, metadata=now), Shifted(RIGHT, metadata=before), anchors=[former_of(Shifted(RIGHT))]
    )
    found = verdict.figures["comparison"]
    assert (verdict.name, found["b"], found["c"]) == ("Promoted", 0, 0), verdict.words


def test_a_worse_model_is_refused_also_with_the_shares_of_use() -> None:
    worse = Answering(wrong_on(range(30)), metadata={"logit_shift": "[0, 0, 0.5]"})
    assert verdict_of(worse, Answering(RIGHT)).name == "Refused"


def test_a_floor_of_accuracy_is_about_the_shares_in_use() -> None:
    floors = {"accuracy": 0.7, "recall": None, "milliseconds": None, "megabytes": None}
    shares = {"logit_shift": "[0, 0, 0]", "class_shares": json.dumps({"cup": 8, "hat": 1, "shoe": 1})}
    no_cups = dict.fromkeys([digest for digest, label in RIGHT.items() if label == "cup"], "hat")
    verdict = verdict_of(Answering(RIGHT | no_cups, metadata=shares), Answering(RIGHT | no_cups), floors=floors)
    assert "its accuracy on 300 test photos is 0.2000, below promote.floors.accuracy, 0.7" in verdict.words


def test_slices_of_labels_csv_are_shown_with_the_largest_loss_first() -> None:
    trial = gate_of(Answering(wrong_on(range(4))), PHOTOS, {number: number for number in range(300)})
    cameras = ["old" if number < 20 else "new" for number in range(299)]
    trial.groups["slice.camera"] = pd.array([*cameras, None], dtype="str")
    verdict = trial.verdict(former_of(Answering(RIGHT)), (), warnings=[], looks=0)
    assert [(each["part"], each["n"], each["b"]) for each in verdict.figures["parts"]["camera"]] == [
        ("old", 20, 4),
        ("(none)", 1, 0),
        ("new", 279, 0),
    ]
    assert [each["part"] for each in verdict.figures["parts"]["class"]] == ["cup", "hat", "shoe"]
