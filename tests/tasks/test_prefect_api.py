"""Questions to a Prefect server: every one ends within seconds, and a server that is away is said to be."""

import socket
import time

import pytest

from tasks.runs import prefect_api
from tasks.runs.prefect_api import Api, ServerAway, named_api
from tests.support.answering import answering

NO_TOKENS = (422, {"detail": "CSRF protection is disabled."})
TOKEN = "Prefect-Csrf-Token"


def test_a_question_is_answered_and_carries_the_login() -> None:
    with answering({"GET flow_runs/1": (200, {"name": "x"})}) as program:
        assert Api(program.url, "me:secret").get("flow_runs/1") == {"name": "x"}
    assert program.asked[0][1]["Authorization"] == "Basic bWU6c2VjcmV0"


def test_a_server_that_protects_itself_gets_one_token_for_all_changes() -> None:
    with answering({"GET csrf-token": (200, {"token": "t"}), "POST artifacts/": (201, {"id": 1})}) as program:
        api = Api(program.url)
        assert [api.post("artifacts/", {"key": "a"}), api.post("artifacts/", {"key": "b"})] == [{"id": 1}] * 2
    assert [headers.get(TOKEN) for asked, headers, _ in program.asked] == [None, "t", "t"]


def test_a_token_that_is_too_old_is_replaced_by_a_new_one() -> None:
    tokens = [(200, {"token": "old"}), (200, {"token": "new"})]
    posts = [(201, None), (403, {"detail": "Invalid CSRF token"}), (201, None)]
    with answering({"GET csrf-token": tokens, "POST artifacts/": posts}) as program:
        api = Api(program.url)
        api.post("artifacts/", {"key": "a"})
        api.post("artifacts/", {"key": "b"})
    sent = [headers[TOKEN] for asked, headers, _ in program.asked if asked == "POST artifacts/"]
    assert sent == ["old", "old", "new"]
    assert program.told("POST artifacts/")[-1] == {"key": "b"}


def test_a_server_whose_database_is_locked_for_a_moment_is_asked_again() -> None:
    with answering({"GET health": [(503, None), (200, True)]}) as program:
        assert Api(program.url).answers()


@pytest.mark.parametrize("answer", [(500, None), (401, None), (200, b"<html>"), (200, b"{")], ids=str)
def test_whatever_else_is_answered_is_a_server_that_is_away(answer: tuple[int, object]) -> None:
    with answering({"GET flow_runs/1": answer, "GET csrf-token": NO_TOKENS}) as program, pytest.raises(ServerAway):
        Api(program.url).get("flow_runs/1")


def test_a_server_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "_PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        assert not Api(f"http://127.0.0.1:{listener.getsockname()[1]}/api").answers()
    assert time.monotonic() - began < 2


def test_prefects_settings_name_the_server_with_its_login() -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_API_AUTH_STRING: "me:secret"}):
        assert named_api() == Api("http://127.0.0.1:9/api", "me:secret")
