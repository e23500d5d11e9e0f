from pathlib import Path

import pytest

from regraft.core.files import read_json, sha256_of
from regraft.photos.base_record import read_base_record
from regraft.photos.base_requests import add_request
from tasks.choose_base import choose_base
from tests.support.small_project import changed, quiet

RECORD = Path("build", "base_photos.parquet")
RAW = Path("data", "raw")


@pytest.fixture
def chosen(project, small_params, capsys):
    """Run the stage with some settings changed, and return its report."""

    def chosen(**sections):
        choose_base.function(changed(small_params, **sections), quiet)
        report = read_json(Path("reports", "base.json"))
        assert capsys.readouterr().out == f"choose_base: {report['words']}\n"
        return report

    return chosen


def test_the_first_run_takes_the_photos_of_the_day(project):
    report = read_json(Path("reports", "base.json"))
    record = read_base_record(RECORD, RAW)
    assert (report["is_renewed"], report["base"], report["photos"]) == (True, record.name, len(record.photos))
    assert set(record.photos.rows.split) == {"train", "val"}
    assert Path("data", "base_renewals.csv").read_text() == "base,reason\n"


def test_nothing_changed_and_the_record_has_the_same_bytes(chosen):
    before = sha256_of(RECORD)
    assert not chosen()["is_renewed"]
    assert sha256_of(RECORD) == before


@pytest.mark.parametrize("settings", [{"renew_after": 0.5}, {"budget": "quick"}])
def test_settings_that_change_no_byte_of_the_base_renew_nothing(chosen, settings):
    assert not chosen(fine_tune=settings)["is_renewed"]


def test_other_settings_renew_it_and_are_named(chosen):
    words = chosen(fine_tune={"epochs": 3}, backbone={"image_size": 32})["words"]
    assert "other settings: backbone.image_size; fine_tune.epochs" in words


def test_a_damaged_record_is_made_anew(chosen):
    before = RECORD.read_bytes()
    RECORD.write_bytes(b"damaged")
    assert chosen()["is_renewed"]
    assert RECORD.read_bytes() == before


def test_where_fine_tuning_is_switched_off_and_on_again(chosen):
    assert chosen(fine_tune={"mode": "off"})["photos"] == 0
    assert chosen()["words"] == "The base is renewed: fine-tuning was off."


def test_a_request_for_this_very_base_has_nothing_to_renew(chosen):
    add_request(Path("data", "base_renewals.csv"), read_base_record(RECORD, RAW).name, "why not")
    assert "nothing to renew" in chosen()["words"]
