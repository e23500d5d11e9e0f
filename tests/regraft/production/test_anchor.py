"""The anchor: the last model that a person approved."""

import re

import pytest

from regraft.files import sha256_of
from regraft.production.registry import Grounds, Production
from tests.support.production import data_of, write_candidate


@pytest.fixture
def production(tmp_path) -> Production:
    return Production(tmp_path / "production")


def promote(production: Production, contents: str, *, approved_by: str | None = None) -> str:
    path = write_candidate(production.folder, contents)
    digest = sha256_of(path)
    grounds = Grounds(digest, production.digest, approved_by=approved_by)
    production.promote(path, contents, keep=1, reference=data_of(contents), grounds=grounds)
    return digest


def test_without_a_model_there_is_none(production):
    assert production.anchor() is None
    assert production.predecessor() is None


def test_it_is_the_first_model_until_a_person_approves_one(production):
    first = promote(production, "one")
    promote(production, "two")
    assert production.anchor() == first
    third = promote(production, "three", approved_by="alice on a laptop")
    promote(production, "four")
    assert production.anchor() == third
    assert production.history()[-2].approved_by == "alice on a laptop"


def test_it_is_kept_however_many_models_follow_and_with_what_it_was_trained_on(production):
    first = promote(production, "one")
    for contents in ("two", "three", "four"):
        promote(production, contents)
    assert production.is_kept(first)
    reference, said = production.anchor_reference()
    assert reference is not None
    assert reference.rows.label.tolist() == ["one"]
    assert said == f"Compared with the 1 photos of the last model that a person approved ({first[:12]})."


def test_a_rollback_approves_the_model_that_it_goes_back_to(production):
    promote(production, "one")
    second = promote(production, "two")
    promote(production, "three", approved_by="alice")
    production.rollback(by=" by bob on a server")
    assert production.anchor() == second == production.digest
    assert production.anchor_reference()[0] is None


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
    assert (production.digest, production.predecessor(), production.anchor()) == (second, first, first)
    assert production.rollback(by=" by bob").sha256 == first
    assert production.digest == first
