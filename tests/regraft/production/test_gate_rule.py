"""The rule, on counts."""

from dataclasses import replace

import numpy as np
import pytest

from regraft.production.gate.comparison import PairedComparison
from regraft.production.gate.rule import Decision, both_ways, decide, photos_needed, promotes_undecided
from tests.support.gate import comparison_of, settings


def chosen(contest: PairedComparison) -> PairedComparison:
    """The same against a model that was chosen on these photos."""
    return replace(contest, was_chosen=True)


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
    assert decide(comparison_of(n, b, c), (), settings()).name == expected


def test_a_large_loss_that_may_be_chance_asks_for_a_person() -> None:
    decision = decide(comparison_of(200, 14, 7), (), settings())
    assert decision.asks_for_a_person
    assert decision.reasons[0].startswith("it lost 3.5 points against the model in production, which may be chance")


def test_a_small_test_set_decides_nothing() -> None:
    decision = decide(comparison_of(29, 0, 20), (), settings())
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)
    assert decision.reasons == ("29 photos can be compared, and at least 30 are needed",)


def test_small_losses_that_add_up_are_seen_by_the_anchor() -> None:
    night, since_the_anchor = comparison_of(1000, 21, 20), comparison_of(1000, 60, 30)
    assert decide(night, (), settings()).name == "Promoted"
    decision = decide(night, [since_the_anchor], settings())
    assert decision.name == "Refused"
    assert (
        "worse than the anchor (the model that a person named last, or the first one): 60 photos" in decision.reasons[0]
    )


def test_an_anchor_with_too_few_photos_has_no_say() -> None:
    assert decide(comparison_of(1000, 20, 20), [comparison_of(29, 20, 0)], settings()).name == "Promoted"


def test_a_class_that_collapsed_refuses_a_model_that_is_better_elsewhere() -> None:
    contest = comparison_of(1000, 12, 30, classes=1)
    labels = contest.labels.copy()
    labels[:12] = 7  # the twelve photos that are lost are all that a class has
    collapsed = type(contest)(labels, contest.older, contest.newer, contest.losses)
    decision = decide(collapsed, (), settings())
    assert decision.name == "Refused"
    assert decision.reasons[0].startswith("recall of '7' fell by 100 points on its 12 photos")
    assert decide(collapsed, (), settings(max_class_loss=1.0)).name == "Refused"
    assert decide(contest, (), settings()).name == "Promoted"


def test_a_class_that_lost_little_refuses_nothing() -> None:
    # All 12 losses in one class of 500: shown, but 2.4 points of its recall.
    contest = comparison_of(1000, 12, 30, classes=2)
    labels = contest.labels.copy()
    labels[:42] = 0
    assert decide(type(contest)(labels, contest.older, contest.newer, contest.losses), (), settings()).name == (
        "Promoted"
    )


def test_worse_probabilities_refuse_a_model_whose_answers_are_equal() -> None:
    decision = decide(comparison_of(346, 5, 5, loss=0.1), (), settings())
    assert decision.name == "Refused"
    assert decision.reasons[0].startswith("its log loss is higher by 0.09")


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_a_larger_margin_promotes_more(margin: float) -> None:
    expected = "Promoted" if margin == 0.05 else "Undecided"
    assert decide(comparison_of(346, 20, 20), (), settings(margin=margin)).name == expected


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
    decision = both_ways(by_new, by_old, changed, 346)
    assert (decision.name, decision.asks_for_a_person) == (expected, asks)


@pytest.mark.parametrize(
    "contest", [comparison_of(346, 20, 8), comparison_of(346, 5, 5, loss=0.0175)], ids=["accuracy", "log loss"]
)
def test_against_a_model_that_was_chosen_on_these_photos_red_takes_more(contest: PairedComparison) -> None:
    assert decide(contest, (), settings()).name == "Refused"
    decision = decide(chosen(contest), (), settings())
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)
    assert decide(chosen(comparison_of(346, 30, 8)), (), settings()).name == "Refused"


def test_the_anchor_was_not_chosen_on_these_photos() -> None:
    anchor = comparison_of(1000, 60, 40)
    assert decide(chosen(comparison_of(1000, 21, 20)), [anchor], settings()).name == "Refused"


def test_against_a_chosen_model_a_loss_is_excluded_with_less_where_the_anchor_excludes_it_as_well() -> None:
    champion, anchor = comparison_of(346, 14, 13), comparison_of(346, 7, 7)  # p = 0.12 and 0.04
    assert decide(champion, (), settings()).name == "Undecided"
    assert decide(chosen(champion), (), settings()).name == "Undecided"
    assert decide(chosen(champion), [anchor], settings()).name == "Promoted"
    assert decide(chosen(champion), [comparison_of(346, 14, 13)], settings()).name == "Undecided"


def test_the_first_model_has_its_say_beside_an_anchor_that_a_person_set() -> None:
    night = chosen(comparison_of(1000, 21, 20))
    assert decide(night, [comparison_of(1000, 21, 20)], settings()).name != "Refused"
    assert decide(night, [comparison_of(1000, 21, 20), comparison_of(1000, 60, 30)], settings()).name == "Refused"


def test_an_anchor_that_was_chosen_on_these_photos_takes_more_to_be_red() -> None:
    night, anchor = chosen(comparison_of(346, 9, 9)), comparison_of(346, 20, 8)  # p = 0.018
    assert decide(night, [anchor], settings()).name == "Refused"
    assert decide(night, [chosen(anchor)], settings()).name == "Undecided"


@pytest.mark.parametrize(("n", "b", "c"), [(300, 0, 0), (346, 3, 14)], ids=["equal", "better"])
def test_a_difference_in_log_loss_that_nobody_feels_refuses_nothing(n: int, b: int, c: int) -> None:
    small = replace(comparison_of(n, b, c), losses=np.full(n, 1e-6), older_loss=0.2)
    assert decide(small, (), settings()).name == "Promoted"


def test_the_least_harm_to_log_loss_grows_with_that_of_the_older_model() -> None:
    contest = replace(comparison_of(346, 5, 5), losses=np.full(346, 0.02))
    assert decide(contest, (), settings()).name == "Refused"
    assert decide(replace(contest, older_loss=1.0), (), settings()).name == "Promoted"


def test_worse_log_loss_of_a_model_whose_accuracy_is_better_is_left_to_a_person() -> None:
    decision = decide(comparison_of(346, 2, 14, loss=0.1), (), settings())  # p = 0.002 that it is no better
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)
    assert decision.reasons[0].startswith("its log loss is higher by 0.09")


def follows(contest: PairedComparison, *, when: str = "auto", anchor: PairedComparison | None = None) -> bool:
    changed = settings(when_undecided=when)
    decision = decide(contest, [anchor] if anchor else (), changed)
    return decision.name == "Undecided" and promotes_undecided(decision, changed)


@pytest.mark.parametrize("n", [30, 54, 100, 200, 1000])
def test_a_small_test_set_follows_what_answers_as_production_does(n: int) -> None:
    differ = max(2, n // 25)
    equal = replace(comparison_of(n, differ, differ), recent=())
    assert follows(equal) or decide(equal, (), settings()).name == "Promoted"
    assert follows(replace(comparison_of(n, 2 * differ, 2 * differ), recent=()))
    assert not follows(equal, when="keep")


def test_a_small_test_set_may_lose_two_photos_and_not_three() -> None:
    assert follows(comparison_of(54, 3, 1))
    decision = decide(comparison_of(54, 4, 1), (), settings())
    assert (decision.name, decision.asks_for_a_person) == ("Undecided", True)


def test_the_newest_models_are_held_against_the_anchor_together() -> None:
    equal = comparison_of(54, 1, 1)
    assert follows(chosen(equal), anchor=replace(equal, recent=(0.0, -0.018, -0.018)))
    lucky = replace(equal, recent=(-0.04,) * 6)  # this one does well where six before it did not
    decision = decide(chosen(equal), [lucky], settings())
    assert not promotes_undecided(decision, settings())
    assert decision.reasons[0].startswith("the 7 newest models lost 3.43 points on average against the anchor")
    assert follows(chosen(equal), anchor=replace(equal, recent=(-0.2, *(0.0,) * 6)))  # that was eight models ago
    assert follows(chosen(equal), when="promote", anchor=lucky)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_so_many_photos_promote_a_model_that_answers_as_production_does(margin: float) -> None:
    changed = settings(margin=margin)
    needed = photos_needed(changed)
    names = [decide(comparison_of(n, 0, 0), (), changed).name for n in (needed - 1, needed)]
    assert names == ["Undecided", "Promoted"]
