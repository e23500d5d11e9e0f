"""Who asks for a new base, and when: the gate that refused two models, once per base; a person."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from regraft.core.errors import RegraftError
from regraft.photos.base_record import read_base_record
from regraft.photos.base_requests import add_request, read_requests
from regraft.production.logs import Change, Look, change_log, verdict_log
from tasks.base_renewal import ask_by_hand, ask_if_gate_refused

REQUESTS, RECORD = Path("data", "base_renewals.csv"), Path("build", "base_photos.parquet")


@pytest.fixture
def name(project):
    """Of the base of the finished project, whose production is empty."""
    Path("models", "production").mkdir(exist_ok=True)
    return read_base_record(RECORD, Path("data", "raw")).name


def look(day: int, model: str, base: str | None, *, name: str = "Refused", n: int = 90) -> None:
    line = Look(f"2026-11-{day:02}T03:00:00+00:00", name, model * 64, None, n, 9, 1, ["ab"], None, base)
    verdict_log(Path("models", "production")).append(line)


def test_two_refusals_of_models_from_one_base_ask_once(name, small_params):
    assert ask_if_gate_refused(small_params) is None
    look(1, "a", name)
    assert ask_if_gate_refused(small_params) is None
    look(2, "b", name)
    said = "the gate refused two models from it, on 2026-11-01 and 2026-11-02"
    assert ask_if_gate_refused(small_params) == f"The next run renews the base, for {said}."
    assert read_requests(REQUESTS) == {name: said}
    look(3, "c", name)
    assert ask_if_gate_refused(small_params) is None
    assert len(read_requests(REQUESTS)) == 1


@pytest.mark.parametrize(
    "looks",
    [
        [("a", "Refused"), ("a", "Refused")],  # the same model, looked at again
        [("a", "Refused"), ("b", "Promoted")],
        [("a", "Refused"), ("b", "Promoted"), ("c", "Refused")],
        [("a", "Refused"), ("b", "Refused"), ("b", "Promoted")],  # let in at the second look
        [("a", "Undecided"), ("b", "Undecided"), ("c", "Undecided")],
        [("a", "Refused"), ("b", "Undecided")],
    ],
)
def test_fewer_refusals_ask_for_nothing(name, small_params, looks):
    for day, (model, verdict) in enumerate(looks, 1):
        look(day, model, name, name=verdict)
    assert ask_if_gate_refused(small_params) is None
    assert read_requests(REQUESTS) == {}


@pytest.mark.parametrize("is_promoted_since", [False, True])
def test_a_base_that_was_renewed_in_vain_is_not_renewed_again_before_a_model_is_promoted(
    name, small_params, is_promoted_since
):
    """Where the gate says no for reasons that no base can mend, every second night would pay for a full training."""
    former = "0" * 16
    add_request(REQUESTS, former, "the gate refused two models from it")
    look(1, "a", former)
    look(2, "b", former)
    if is_promoted_since:  # by the gate, or by a person, after which no verdict says so
        change = Change("2026-11-03T09:00:00+00:00", "promoted", "c" * 64, "Approved.", approved_by="Ada")
        change_log(Path("models", "production")).append(change)
    look(4, "d", name)
    look(5, "e", name)
    assert (ask_if_gate_refused(small_params) is not None) == is_promoted_since


def test_verdicts_on_models_from_other_bases_or_from_none_do_not_count(name, small_params):
    look(1, "a", "0" * 16)
    look(2, "b", None)
    look(3, "c", name)
    assert ask_if_gate_refused(small_params) is None
    look(4, "d", "0" * 16)  # two of it, and it is not there any more
    assert ask_if_gate_refused(small_params) is None


def test_refusals_without_a_comparison_ask_for_nothing(name, small_params):
    for day, model in enumerate("ab", 1):
        look(day, model, name, n=0)
    assert ask_if_gate_refused(small_params) is None


def test_a_person_asks_in_words(name, small_params):
    assert ask_by_hand(small_params, "photos of a customer had to go").startswith("The next run renews the base, if ")
    assert "asked for already" in ask_by_hand(small_params, "again")
    assert read_requests(REQUESTS) == {name: "photos of a customer had to go"}
    RECORD.unlink()
    with pytest.raises(RegraftError, match="there is no base yet to renew"):
        ask_by_hand(small_params, "again")


def test_the_command_needs_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["retrain", "--renew-base", "so"]).exit_code == 1
