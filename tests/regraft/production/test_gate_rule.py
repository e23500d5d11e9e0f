"""The rule, on counts."""

import pytest

from regraft.production.gate.comparison import Contest
from regraft.production.gate.rule import Decision, both_ways, decide
from tests.support.gate import contest_of, settings

HARMLESS, UNDECIDED, REFUSED = Decision("Promoted", ()), Decision("Undecided", ()), Decision("Refused", ("worse",))
ASKS = Decision("Undecided", ("large",), asks_for_a_person=True)


@pytest.mark.parametrize(
    ("n", "b", "c", "expected"),
    [
        (346, 5, 20, "Promoted"),  # better
        (346, 7, 7, "Promoted"),  # equal, and they differ on few photos
        (346, 20, 20, "Undecided"),  # equal, and they differ on many
        (5000, 60, 40, "Refused"),  # p = 0.028
        (5000, 55, 45, "Promoted"),
        (346, 20, 8, "Refused"),  # 3.5 points worse, p = 0.018
        (200, 14, 7, "Undecided"),  # 3.5 points worse, which may be chance: p = 0.09
        (200, 0, 0, "Promoted"),
    ],
)
def test_counts_decide(n: int, b: int, c: int, expected: str) -> None:
    assert decide(contest_of(n, b, c), None, settings()).name == expected


def test_a_large_loss_that_may_be_chance_asks_for_a_person() -> None:
    decision = decide(contest_of(200, 14, 7), None, settings())
    assert decision.asks_for_a_person
    assert decision.reasons[0].startswith("it lost 3.5 points against the model in production, which may be chance")


def test_a_loss_of_exactly_the_limit_counts() -> None:
    assert decide(contest_of(200, 9, 3), None, settings()).asks_for_a_person


def test_a_small_test_set_decides_nothing() -> None:
    decision = decide(contest_of(49, 0, 20), None, settings())
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)
    assert decision.reasons == ("49 photos can be compared, and promote.min_photos asks for 50",)


def test_no_photo_at_all_decides_nothing() -> None:
    assert decide(contest_of(0, 0, 0), None, settings()).name == "Undecided"


def test_small_losses_that_add_up_are_seen_by_the_anchor() -> None:
    night, since_the_anchor = contest_of(1000, 21, 20), contest_of(1000, 60, 30)
    assert decide(night, None, settings()).name == "Promoted"
    decision = decide(night, since_the_anchor, settings())
    assert decision.name == "Refused"
    assert (
        "worse than the anchor (the last model that a person approved, or the first one): 60 photos"
        in decision.reasons[0]
    )


def test_an_anchor_with_too_few_photos_has_no_say() -> None:
    assert decide(contest_of(1000, 20, 20), contest_of(40, 20, 0), settings()).name == "Promoted"


def test_a_class_that_collapsed_refuses_a_model_that_is_better_elsewhere() -> None:
    contest = contest_of(1000, 12, 30, classes=1)
    labels = contest.labels.copy()
    labels[:12] = 7  # the twelve photos that are lost are all that a class has
    collapsed = type(contest)(labels, contest.older, contest.newer, contest.losses)
    decision = decide(collapsed, None, settings())
    assert decision.name == "Refused"
    assert decision.reasons[0].startswith("recall of '7' fell by 100 points on its 12 photos")
    assert decide(collapsed, None, settings(max_class_loss=1.0)).name == "Refused"
    assert decide(contest, None, settings()).name == "Promoted"


def test_a_class_that_lost_little_refuses_nothing() -> None:
    # All 12 losses in one class of 500: shown, but 2.4 points of its recall.
    contest = contest_of(1000, 12, 30, classes=2)
    labels = contest.labels.copy()
    labels[:42] = 0
    assert decide(type(contest)(labels, contest.older, contest.newer, contest.losses), None, settings()).name == (
        "Promoted"
    )


def test_worse_probabilities_refuse_a_model_whose_answers_are_equal() -> None:
    decision = decide(contest_of(346, 5, 5, loss=0.1), None, settings())
    assert decision.name == "Refused"
    assert decision.reasons[0].startswith("its log loss is higher by 0.09")


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_a_larger_margin_promotes_more(margin: float) -> None:
    expected = "Promoted" if margin == 0.05 else "Undecided"
    assert decide(contest_of(346, 20, 20), None, settings(margin=margin)).name == expected


@pytest.mark.parametrize(
    ("by_new", "by_old", "changed", "expected", "asks"),
    [
        (HARMLESS, HARMLESS, 1, "Promoted", False),
        (HARMLESS, UNDECIDED, 1, "Undecided", False),
        (HARMLESS, REFUSED, 1, "Undecided", True),
        (HARMLESS, ASKS, 1, "Undecided", True),
        (HARMLESS, HARMLESS, 7, "Undecided", True),
        (REFUSED, HARMLESS, 7, "Refused", False),
    ],
)
def test_labels_that_changed_promote_nothing_and_make_nothing_red(
    by_new: Decision, by_old: Decision, changed: int, expected: str, asks: bool
) -> None:
    decision = both_ways(by_new, by_old, changed, 346, settings())
    assert (decision.name, decision.asks_for_a_person) == (expected, asks)


@pytest.mark.parametrize(
    "contest", [contest_of(346, 20, 8), contest_of(346, 5, 5, loss=0.0175)], ids=["accuracy", "log loss"]
)
def test_against_a_model_that_was_chosen_on_these_photos_red_takes_more(contest: Contest) -> None:
    assert decide(contest, None, settings()).name == "Refused"
    decision = decide(contest, None, settings(), was_chosen=True)
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)
    assert decide(contest_of(346, 30, 8), None, settings(), was_chosen=True).name == "Refused"


def test_the_anchor_was_not_chosen_on_these_photos() -> None:
    anchor = contest_of(1000, 60, 40)
    assert decide(contest_of(1000, 21, 20), anchor, settings(), was_chosen=True).name == "Refused"


def test_against_a_chosen_model_a_loss_is_excluded_with_less_where_the_anchor_excludes_it_as_well() -> None:
    champion, anchor = contest_of(346, 14, 13), contest_of(346, 7, 7)  # p = 0.12 and 0.04
    assert decide(champion, None, settings()).name == "Undecided"
    assert decide(champion, None, settings(), was_chosen=True).name == "Undecided"
    assert decide(champion, anchor, settings(), was_chosen=True).name == "Promoted"
    assert decide(champion, contest_of(346, 14, 13), settings(), was_chosen=True).name == "Undecided"
