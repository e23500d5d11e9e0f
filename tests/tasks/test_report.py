import os
import re
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from regraft.core.files import sha256_of
from regraft.production.registry import Production
from tasks import report
from tasks.after_promotion import after_promotion
from tasks.promote import challenge
from tasks.report import pages_to_publish, refresh_report, write_report
from tests.support.small_project import quiet


@pytest.fixture
def folder(project, small_params):
    """A finished project with the files in its root that mark it as one."""
    with (project / "params.yaml").open("w") as file:
        YAML().dump(small_params.model_dump(mode="json"), file)
    (project / "dvc.yaml").touch()
    return project


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_the_page_needs_no_network(folder):
    page = write_report().read_text(encoding="utf-8")
    assert re.findall(r"https?://", page) == []
    assert page.count("data:image/png;base64,") >= 5
    assert page.count("data:image/jpeg;base64,") >= 24


def test_the_page_is_written_for_the_model_that_is_there(folder):
    assert write_report() == report.page_of(report.load_params(folder / "params.yaml"))
    page = (folder / "reports" / "report.html").read_text(encoding="utf-8")
    assert "Not in production" in page
    assert "not in git" in page
    assert "data/raw; DVC has recorded no version of it" in page


def test_a_model_card_of_this_very_file_lies_beside_the_page(folder):
    write_report()
    card = (folder / "reports" / "model_card.md").read_text(encoding="utf-8")
    assert sha256_of(folder / "models" / "model.onnx") in card
    assert "| grün | " in card
    (folder / "reports" / "model_card.md").unlink()
    assert refresh_report()
    assert (folder / "reports" / "model_card.md").exists()


def test_the_model_card_goes_into_production_with_the_first_model(folder, small_params):
    (folder / "reports" / "model_card.md").unlink(missing_ok=True)
    challenge(small_params, quiet)
    assert after_promotion(small_params) == []
    served = folder / "models" / "production" / "model_card.md"
    assert sha256_of(folder / "models" / "production" / "model.onnx") in served.read_text(encoding="utf-8")


def test_the_page_has_the_verdict_of_the_gate(folder, small_params):
    challenge(small_params, quiet)
    page = write_report().read_text(encoding="utf-8")
    assert "In production since" in page
    assert "first model in production" in page


def test_the_page_names_the_version_of_the_photos_in_dvc_lock(folder):
    lock = "stages: {validate_data: {deps: [{path: data/raw, md5: 0123456789abcdef.dir}]}}"
    (folder / "dvc.lock").write_text(lock)
    assert "data/raw, MD5 0123456789abcdef in dvc.lock" in write_report().read_text(encoding="utf-8")


def test_the_page_names_the_revision_and_what_was_edited_since(folder):
    git("init", "--quiet")
    git("add", "params.yaml", "dvc.yaml")
    git("commit", "--quiet", "-m", "a")
    assert re.search(r"git [0-9a-f]{12}</dd>", write_report().read_text(encoding="utf-8"))
    (folder / "dvc.yaml").write_text("stages: {}")
    assert re.search(r"git [0-9a-f]{12}, and not committed: dvc.yaml<", write_report().read_text(encoding="utf-8"))


def test_a_page_that_shows_what_there_is_stays_as_it_is(folder):
    write_report()
    os.utime(folder / "reports" / "report.html")  # files of a copy may be as new as the page
    before = (folder / "reports" / "report.html").stat().st_mtime_ns
    assert not refresh_report()
    assert (folder / "reports" / "report.html").stat().st_mtime_ns == before


def test_without_results_there_is_no_page(folder):
    shutil.rmtree(folder / "reports")
    assert not refresh_report()
    assert not (folder / "reports").exists()


def test_a_page_is_written_again_once_another_model_is_in_production(folder, small_params):
    write_report()
    Production(small_params.paths.production).promote(small_params.paths.onnx, "better", keep=1)
    assert refresh_report()
    assert "In production since" in (folder / "reports" / "report.html").read_text(encoding="utf-8")


def test_a_report_can_be_made_again_without_the_photos(folder):
    shutil.rmtree(folder / "data" / "raw")
    assert write_report().stat().st_size > 10_000


def test_pages_are_drawn_once_for_each_version_of_a_stage(folder, small_params, monkeypatch):
    (folder / "dvc.lock").write_text("stages: {evaluate: {outs: [{path: reports/metrics.json, md5: '1'}]}}")
    pages = pages_to_publish("evaluate", small_params)
    assert list(pages) == ["metrics", "confusion-matrix", "parts", "calibration", "abstention"]
    monkeypatch.setattr(report, "pages_of", lambda *_: {"drawn": "again"})
    assert pages_to_publish("evaluate", small_params) == pages
    (folder / "dvc.lock").write_text("stages: {evaluate: {outs: [{path: reports/metrics.json, md5: '2'}]}}")
    assert pages_to_publish("evaluate", small_params) == {"drawn": "again"}
