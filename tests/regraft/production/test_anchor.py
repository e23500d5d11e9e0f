"""The anchor: the first model, until a person names another one."""

import re

import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.registry import Grounds, Production
from tests.support.production import data_of, write_candidate


@pytest.fixture
def production(tmp_path) -> Production:
    return Production(tmp_path / "production")


def promote(production: Production, contents: str, *, approved_by: str | None = None, is_by_hand: bool = False) -> str:
    path = write_candidate(production.folder, contents)
    digest = sha256_of(path)
    grounds = Grounds(digest, production.digest, approved_by=approved_by, is_by_hand=is_by_hand)
    production.promote(path, contents, keep=1, reference=data_of(contents), grounds=grounds)
    return digest


def anchor_of(production: Production) -> str | None:
    return production.anchored()[0]


def test_without_a_model_there_is_none(production):
    assert (production.anchored(), production.anchors()) == ((None, []), [])
    assert production.predecessor() is None
    with pytest.raises(RegraftError, match="no sound model is in production"):
        production.set_anchor(None)


def test_an_approval_moves_no_anchor_and_the_model_counts_as_chosen(production):
    first = promote(production, "one")
    second = promote(production, "two")
    third = promote(production, "three", approved_by="alice on a laptop")
    assert production.anchors() == [first]
    assert [production.was_chosen(each) for each in (first, second, third)] == [False, True, True]
    assert production.history()[-1].approved_by == "alice on a laptop"


def test_a_promotion_by_force_moves_it_and_the_first_model_stays_beside_it(production):
    first, forced = promote(production, "one"), promote(production, "two", is_by_hand=True)
    assert production.anchors() == [forced, first]
    assert not production.was_chosen(forced)
    promote(production, "three")
    assert production.anchors() == [forced, first]


@pytest.mark.parametrize("named", ["production", "earlier"])
def test_a_person_may_name_it_and_production_stays(production, named):
    first, second, third = (promote(production, contents) for contents in ("one", "two", "three"))
    expected = third if named == "production" else first
    change = production.set_anchor(None if named == "production" else first[:8], by=" by bob on a server")
    assert (change.action, change.sha256, change.anchor) == ("anchored", third, expected)
    assert (production.digest, anchor_of(production)) == (third, expected)
    assert production.was_chosen(second)
    assert production.was_chosen(third)  # by these photos, whatever it is called
    assert production.rollback().sha256 == second


def test_a_model_that_is_not_kept_cannot_be_named(production):
    promote(production, "one")
    with pytest.raises(RegraftError, match="Received: 'abc', which fits 0 sound ones"):
        production.set_anchor("abc")


def test_it_is_kept_however_many_models_follow_and_with_what_it_was_trained_on(production):
    first = promote(production, "one")
    for contents in ("two", "three", "four"):
        promote(production, contents)
    assert production.is_kept(first)
    reference, said = production.anchor_reference()
    assert reference is not None
    assert reference.rows.label.tolist() == ["one"]
    assert said == f"Compared with the 1 photos of the anchor ({first[:12]})."


def test_a_rollback_makes_the_model_that_it_goes_back_to_the_anchor(production):
    first, second = promote(production, "one"), promote(production, "two")
    promote(production, "three", approved_by="alice")
    production.rollback(by=" by bob on a server")
    assert production.anchors() == [second, first]
    assert production.digest == second
    assert production.anchor_reference()[0] is None


def test_a_rollback_may_go_to_a_named_model(production):
    first = promote(production, "one")
    for contents in ("two", "three", "four"):
        last = promote(production, contents)
    change = production.rollback(to=first[:12])
    assert (change.left, production.digest, production.anchors()) == (last, first, [first])


def test_the_model_before_is_the_one_that_a_rollback_goes_to(production):
    first, second = promote(production, "one"), promote(production, "two")
    assert production.predecessor() == first
    promote(production, "three")
    assert production.predecessor() == second
    production.rollback()
    assert production.predecessor() == first


def test_a_clock_that_was_set_back_changes_nothing_of_what_came_after_what(production):
    first = promote(production, "one")
    log = production.folder / "log.jsonl"
    log.write_text(re.sub(r'"at":"[^"]+"', '"at":"2099-01-01T00:00:00+00:00"', log.read_text()))
    second = promote(production, "two")
    assert (production.digest, production.predecessor(), anchor_of(production)) == (second, first, first)
    assert production.rollback(by=" by bob").sha256 == first
    assert production.digest == first
