"""The steps of a run around the gate."""

from typing import NoReturn

import pytest

from flows import promote
from regraft.core.errors import RegraftError


def test_a_page_that_cannot_be_written_does_not_fail_a_run_that_may_have_promoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refresh() -> NoReturn:
        raise RegraftError("There is no room in reports.")

    monkeypatch.setattr(promote, "enter_project", lambda: None)
    monkeypatch.setattr(promote, "refresh_report", refresh)
    promote.write_report()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "report.html is still that of a run before: There is no room in reports.",
        "write_report: Not written",
    ]
