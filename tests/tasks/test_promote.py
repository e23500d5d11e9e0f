import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from regraft.core.config import Params
from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import read_json, sha256_of
from regraft.export.evaluation import read_classes
from regraft.features.table import read_features
from regraft.photos.base_record import read_base_record, write_base_record
from regraft.photos.dataset import read_dataset, write_dataset
from regraft.photos.manifest import read_manifest
from regraft.production.gate import rule
from regraft.production.logs import Origin, recent_changes, verdict_log
from regraft.production.records import Standing
from regraft.production.registry import Production
from regraft.production.training_data import Reference
from tasks import promote as gate
from tasks import up_to_date
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.promote import challenge, force, history, rollback
from tests.support.small_project import changed, quiet
from tests.support.steps import Stepping


def test_a_model_goes_into_production_with_what_it_was_trained_on(project, small_params):
    verdict = challenge(small_params, quiet)
    assert verdict.is_accepted
    reference, _ = Production(small_params.paths.production).find_reference()
    assert reference
    _, manifest = read_manifest(small_params.paths.manifest)
    assert sorted(reference.rows.digest) == sorted(manifest.digest)
    assert len(reference.features) == 72
    assert reference.namespace == read_features(small_params.paths.features).namespace


def test_a_model_is_promoted_although_what_it_was_trained_on_is_not_known_any_more(project, small_params):
    small_params.paths.features.unlink()
    verdict = challenge(small_params, quiet)
    assert verdict.is_accepted
    assert Production(small_params.paths.production).find_reference()[0] is None


def test_a_verdict_that_cannot_be_carried_out_is_not_recorded(project, small_params, monkeypatch):
    def lost(params: Params) -> None:
        raise RegraftError("rows are missing")

    monkeypatch.setattr(gate, "reference_of_model", lost)
    with pytest.raises(RegraftError, match="rows are missing"):
        challenge(small_params, quiet)
    assert not (small_params.paths.production / "verdicts.jsonl").exists()
    assert not (project / "reports" / "gate.json").exists()


def test_what_the_gate_said_is_written_for_the_report_with_the_model_that_it_is_about(project, small_params):
    challenge(small_params, quiet)
    verdict = read_json(project / "reports" / "gate.json")
    assert verdict["about"]["model"] == sha256_of(project / "models" / "model.onnx")
    assert (verdict["is_accepted"], verdict["champion"]) == (True, None)
    assert verdict["challenger"]["accuracy_low"] < verdict["challenger"]["accuracy"]
    assert verdict["challenger"]["images"] == read_json(project / "reports" / "metrics.json")["test"]["images"]


def test_of_many_test_photos_the_gate_judges_the_sample_that_the_figures_are_about(project, small_params, monkeypatch):
    for task in ("evaluate", "promote"):
        monkeypatch.setattr(f"tasks.{task}.JUDGED", 9)
    evaluate.function(small_params, quiet)
    challenge(small_params, quiet)
    verdict, test = (read_json(project / "reports" / name) for name in ("gate.json", "metrics.json"))
    assert verdict["challenger"]["images"] == test["test"]["images"] == 9
    assert verdict["challenger"]["accuracy"] == test["test"]["accuracy"]
    assert verdict["of_images"] == test["test"]["of_images"] > 9
    assert verdict["words"].endswith(f"The test photos are a sample of {verdict['of_images']}.")


def test_without_a_data_set_the_gate_says_what_to_run(project, small_params):
    small_params.paths.dataset.unlink()
    with pytest.raises(RegraftError, match=r"there is no build/dataset\.parquet to compare models on"):
        challenge(small_params, quiet)


def test_a_model_whose_base_is_no_longer_known_is_not_judged_on_photos_that_base_may_have_seen(project, small_params):
    """A run that chose a new base was killed before it exported: model.onnx comes from the old one."""
    path = small_params.paths.base_photos
    record = read_base_record(path, small_params.paths.raw)
    write_base_record(path, replace(record, code="of another run"))
    for promote in (lambda: challenge(small_params, quiet), lambda: force(small_params, "it has to be")):
        with pytest.raises(RegraftError, match=r"comes from a base whose record is not there.*Run `regraft retrain`"):
            promote()
    path.write_bytes(b"damaged")
    with pytest.raises(RegraftError, match="comes from a base whose record is not there"):
        challenge(small_params, quiet)


def test_photos_that_the_base_saw_are_left_out_whatever_a_run_left_of_the_list_of_them(project, small_params):
    """A run that was killed after `preprocess`: the data set is of today, build/left_out.parquet of the run before."""
    dataset = read_dataset(small_params.paths.dataset, small_params.paths.raw)
    moved = dataset.rows.index[dataset.rows.split == "train"][:3]
    rows = dataset.rows.assign(split=dataset.rows.split.where(~dataset.rows.index.isin(moved), "test"))
    write_dataset(small_params.paths.dataset, dataset.with_rows(rows))
    small_params.paths.left_out.unlink()
    challenge(small_params, quiet)
    judged = read_json(project / "reports" / "gate.json")["challenger"]["images"]
    assert judged == len(dataset.of("test"))


# What was rolled back from.


@pytest.fixture
def rolled_back(project: Path, small_params: Params) -> Production:
    """Production after the new model was promoted over another one, and rolled back from."""
    production = Production(small_params.paths.production)
    other = make_other(project)
    production.promote(other, "the first", keep=5)
    force(small_params, "a test")
    rollback(small_params)
    assert production.digest == sha256_of(other)
    return production


def make_other(project: Path) -> Path:
    """Write a model that classifies as models/model.onnx does, and is another file."""
    model = onnx.load(project / "models" / "model.onnx")
    model.doc_string = "another file"
    onnx.save(model, project / "other.onnx")
    return project / "other.onnx"


def test_the_next_run_does_not_promote_what_was_rolled_back_from_and_says_why(rolled_back, small_params):
    there = rolled_back.digest
    verdict = challenge(small_params, quiet)
    assert not verdict.is_accepted
    assert re.match(
        r"Refused: a person decided against this very model\. It was rolled back from at 2.* UTC: Rolled back from "
        r"\w{12} by \S+ on \S+\. The model in production stays\. .* `regraft promote --force REASON` puts this",
        verdict.words,
    )
    assert rolled_back.digest == there
    assert not read_json(small_params.paths.reports / "gate.json")["is_accepted"]


def exported_with_one_more_photo(project: Path, number: int) -> str:
    """Put another model, as good as before, in the place of models/model.onnx, and return its SHA-256."""
    path = project / "models" / "model.onnx"
    model = onnx.load(path)
    model.doc_string = f"{number} more photos"
    path.unlink()
    onnx.save(model, path)
    return sha256_of(path)


@pytest.mark.parametrize("mode", ["auto", "approve"])
def test_after_a_rollback_the_next_model_waits_for_a_person_and_those_after_it_do_not(
    rolled_back, small_params, project, mode
):
    params, there = with_promote(small_params, mode=mode), rolled_back.digest
    for number in (1, 2):
        digest = exported_with_one_more_photo(project, number)
        verdict = challenge(params, quiet)
        assert (verdict.name, verdict.is_accepted) == (
            "Undecided" if mode == "auto" else "Waiting for approval",
            False,
        )
        assert re.match(
            r"(Undecided: |Waiting for approval \(promote\.mode: approve\)\. )At 2\S+ \S+ UTC a person decided against "
            r"what was in production: Rolled back from \w{12} by \S+ on \S+\. No person has promoted a model since, so "
            r"the next one waits for a person: `regraft promote --candidate "
            rf"{digest[:12]}` promotes this "
            r"one, and from then on the gate decides again\. The gate says (Promoted|Undecided): ",
            verdict.words,
        ), verdict.words
        assert rolled_back.digest == there
    if mode == "approve":
        gate.approve(params, digest[:12], "")
    else:
        force(params, "it is good", digest[:12])
    assert rolled_back.digest == digest
    after = exported_with_one_more_photo(project, 3)
    assert challenge(small_params, quiet).is_accepted
    assert rolled_back.digest == after


def test_where_everything_is_up_to_date_a_model_that_was_rolled_back_from_is_not_in_production(
    rolled_back, small_params, project, monkeypatch
):
    """The quick answer of `regraft retrain` must not pass the gate by."""
    (project / "params.yaml").touch()
    monkeypatch.setattr(up_to_date, "load_params", lambda path: small_params)
    monkeypatch.setattr(up_to_date, "is_up_to_date", lambda root, folder: True)
    assert up_to_date.nothing_to_do(project, promote=True) is None
    force(small_params, "a test")
    found = up_to_date.nothing_to_do(project, promote=True)
    assert found
    assert found[0] == "Already in production"


# What is damaged.

DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_model_in_production_refuses_the_new_one_with_what_helps_and_that_helps(project, small_params, kind):
    production = Production(small_params.paths.production)
    production.promote(make_other(project), "the first", keep=5)
    there = production.digest
    DAMAGE[kind](production.model)
    verdict = challenge(small_params, quiet)
    assert not verdict.is_accepted
    assert re.match(
        r"Refused: the new model cannot be compared with the one in production\. .*is damaged", verdict.words
    )
    assert "`regraft promote --rollback` puts the last sound model back" in verdict.words
    assert history(small_params)[1].endswith("`regraft promote --rollback` puts the last sound model back.")
    assert rollback(small_params).sha256 == there
    after = challenge(small_params, quiet)
    assert after.is_accepted


@pytest.mark.parametrize("classes", [["red"]])
def test_a_whole_file_that_cannot_name_classes_is_as_good_as_damaged(project, small_params, classes, colour_model):
    model = colour_model(["a", "b", "c"])
    helper.set_model_props(model, {"class_names": json.dumps(classes)})
    onnx.save(model, project / "odd.onnx")
    Production(small_params.paths.production).promote(project / "odd.onnx", "by hand", keep=5)
    verdict = challenge(small_params, quiet)
    assert re.search(r"model\.onnx is not a model exported by Regraft \(.*class_names", verdict.words)


def test_no_file_is_forced_into_production_that_cannot_name_the_class_of_a_photo(project, small_params):
    small_params.paths.onnx.unlink()
    small_params.paths.onnx.write_text("no model")
    with pytest.raises(RegraftError, match="is not a model exported by Regraft"):
        force(small_params, "a test")
    assert Production(small_params.paths.production).standing() == Standing(None, None, None)


def test_a_model_that_is_exported_anew_while_the_gate_compares_is_not_promoted_unseen(
    project, small_params, monkeypatch
):
    other = make_other(project)

    def export_meanwhile(params, *arguments):
        params.paths.onnx.chmod(0o644)
        params.paths.onnx.write_bytes(other.read_bytes())
        return compare(params, *arguments)

    compare = gate._judge
    monkeypatch.setattr(gate, "_judge", export_meanwhile)
    with pytest.raises(InputsChanged, match="the new model changed after it was judged"):
        challenge(small_params, quiet)
    assert Production(small_params.paths.production).digest is None


def test_a_rollback_while_the_gate_compares_is_not_undone(project, small_params, monkeypatch):
    production = Production(small_params.paths.production)
    for number, words in enumerate(["the first", "the second"]):
        model = onnx.load(make_other(project))
        model.doc_string = f"number {number}"
        onnx.save(model, project / "other.onnx")
        production.promote(project / "other.onnx", words, keep=5)

    def roll_back_meanwhile(*arguments):
        rollback(small_params)
        return compare(*arguments)

    compare = gate._judge
    monkeypatch.setattr(gate, "_judge", roll_back_meanwhile)
    with pytest.raises(InputsChanged, match="production changed while the new model was compared with it"):
        challenge(small_params, quiet)
    assert production.history()[-1].action == "rolled back"
    assert production.digest == production.history()[0].sha256


# What is not promoted, and who may all the same.

NO_FLOORS = {"accuracy": None, "recall": None, "milliseconds": None, "megabytes": None}


def with_promote(params: Params, **settings) -> Params:
    return changed(params, promote=settings)


def test_a_refused_model_is_a_candidate_that_a_person_can_promote_with_a_reason(project, small_params):
    production = Production(small_params.paths.production)
    production.promote(make_other(project), "the first", keep=5)
    too_large = with_promote(small_params, floors=NO_FLOORS | {"megabytes": 0.001, "milliseconds": 0.001})
    verdict = challenge(too_large, quiet)
    assert (verdict.name, verdict.is_accepted) == ("Refused", False)
    assert "above promote.floors.megabytes, 0.001" in verdict.words
    assert "ms for a photo on one core, above promote.floors.milliseconds, 0.001" in verdict.words
    digest = sha256_of(small_params.paths.onnx)
    assert gate.candidates_told(small_params) == [f"{digest[:12]}  {verdict.words}"]
    small_params.paths.onnx.unlink()
    change = force(small_params, "the floors were wrong", digest[:7])
    assert (production.digest, change.sha256) == (digest, digest)
    assert change.words.endswith("without the gate: the floors were wrong")
    assert change.approved_by
    assert production.find_reference()[0]
    assert gate.candidates_told(small_params) == []


def test_a_promotion_by_hand_needs_a_reason(project, small_params):
    with pytest.raises(RegraftError, match=r"needs a reason, for the log: `regraft promote --force REASON`"):
        force(small_params, " ")


def test_a_model_that_waits_for_a_person_is_promoted_once_one_approves(project, small_params):
    waits = with_promote(small_params, mode="approve")
    verdict = challenge(waits, quiet)
    production = Production(small_params.paths.production)
    assert (verdict.name, production.digest) == ("Waiting for approval", None)
    change = gate.approve(waits, verdict.figures["about"]["model"], "it looks right")
    assert production.digest == sha256_of(small_params.paths.onnx)
    assert re.match(r"Approved by \S+ on \S+: it looks right\. The gate says Promoted: first model", change.words)


def test_an_approval_of_what_was_compared_with_another_model_is_refused(project, small_params):
    waits = with_promote(small_params, mode="approve")
    verdict = challenge(waits, quiet)
    Production(small_params.paths.production).promote(make_other(project), "meanwhile", keep=5)
    with pytest.raises(InputsChanged, match=r"was compared with no model, and \w+ is in production now"):
        gate.approve(waits, verdict.figures["about"]["model"], "late")


def test_a_candidate_is_accepted_without_force_and_without_a_reason_and_the_anchor_stays(project, small_params):
    production = Production(small_params.paths.production)
    first = sha256_of(make_other(project))
    production.promote(make_other(project), "the first", keep=5)
    challenge(with_promote(small_params, when_undecided="keep"), quiet)
    digest = sha256_of(small_params.paths.onnx)
    change = gate.approve(small_params, digest[:8], "")
    assert (production.digest, production.anchors(), production.was_chosen(digest)) == (digest, [first], True)
    assert re.match(r"Approved by \S+ on \S+: no reason given\. Undecided: ", change.words)


def test_what_the_gate_refused_is_promoted_by_force_alone_and_is_the_anchor_then(project, small_params):
    production = Production(small_params.paths.production)
    production.promote(make_other(project), "the first", keep=5)
    challenge(with_promote(small_params, floors=NO_FLOORS | {"megabytes": 0.001}), quiet)
    digest = sha256_of(small_params.paths.onnx)
    with pytest.raises(RegraftError, match=r"did not leave \w+ to a person: Refused.* --force REASON --candidate"):
        gate.approve(small_params, digest, "I want it")
    force(small_params, "the floors were wrong", digest)
    assert production.anchors()[0] == digest
    assert gate.set_anchor(small_params, "production").anchor == digest


def test_the_newest_models_are_remembered_by_what_they_were_compared_with(project, small_params):
    production, other = Production(small_params.paths.production), make_other(project)
    first = sha256_of(other)
    production.promote(other, "the first", keep=5)
    challenge(small_params, quiet)
    (look,) = verdict_log(production.folder).read()[0]
    assert list(look.changes) == [first]
    assert recent_changes([look], look.sketch, first, "f" * 64) == (look.changes[first],)
    assert recent_changes([look], look.sketch, first, look.challenger) == ()  # the model itself, judged again
    assert recent_changes([look], ["0" * 10], first, "f" * 64) == ()  # on other photos


def test_each_verdict_counts_as_a_look_at_the_test_photos(project, small_params):
    other, production = make_other(project), Production(small_params.paths.production)
    challenge(small_params, quiet)
    exported = small_params.paths.onnx
    exported.unlink()
    exported.write_bytes(other.read_bytes())
    verdict = challenge(small_params, quiet)
    assert verdict.figures["looks_before"] == 1
    assert [look.name for look in verdict_log(production.folder).read()[0]] == ["Promoted", verdict.name]


def test_photos_that_neither_model_was_trained_on_judge_them_once_until_the_anchor_moves(project, small_params):
    production, other = Production(small_params.paths.production), make_other(project)
    reference = gate.reference_of_model(small_params)
    assert reference is not None
    older = Reference(reference.rows.iloc[:-12], reference.features[:-12], reference.namespace)
    production.promote(other, "the first", keep=5, reference=older)
    production.promote(small_params.paths.onnx, "the second", keep=5, reference=older)
    for _ in range(2):
        verdict = challenge(small_params, quiet)
        assert verdict.name == "Already in production"
        # Both say the same of every photo, so no photo tells them apart.
        assert verdict.figures["new_photos"] == {"photos": 12, "b": 0, "c": 0, "e_value": 1.0, "is_alarm": False}
    gate.set_anchor(small_params, "production")
    assert "new_photos" not in challenge(small_params, quiet).figures  # the count begins anew


def test_labels_are_compared_with_those_of_production_also_where_all_files_were_saved_anew(project, small_params):
    production, reference = Production(small_params.paths.production), gate.reference_of_model(small_params)
    assert reference is not None
    swapped = reference.rows.label.replace({"red": "grün", "grün": "red"})
    rows = reference.rows.assign(digest=reference.rows.digest.str[::-1], label=swapped)
    production.promote(make_other(project), "the first", keep=5, reference=replace(reference, rows=rows))
    verdict = challenge(small_params, quiet)
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert verdict.figures["relabelled"] > 0.3 * verdict.figures["comparison"]["n"] > 0


def test_shares_of_classes_in_use_that_are_set_alone_are_no_harm_and_figures_are_about_them(project, small_params):
    assert challenge(small_params, quiet).is_accepted
    shares = {"red": 0.9, "grün": 0.05, "deep blue": 0.05}
    params = changed(small_params, export_onnx={"class_shares": shares})
    export_onnx.function(params, quiet)
    evaluate.function(params, quiet)
    verdict = challenge(params, quiet)
    found = verdict.figures["comparison"]
    assert (verdict.is_accepted, found["b"], found["c"]) == (True, 0, 0), verdict.words
    classes = read_classes(project / "reports" / "classes.csv").set_index("class_name").recall
    accuracy = read_json(project / "reports" / "metrics.json")["test"]["accuracy"]
    assert accuracy == pytest.approx(sum(share * classes[name] for name, share in shares.items()), abs=1e-3)
    assert (
        "count, so that classes are as frequent as in use"
        in read_json(project / "reports" / "export.json")["abstention"]["words"]
    )


# Killed.


def test_a_gate_that_is_killed_at_any_moment_leaves_a_sound_model_and_the_next_one_ends_well(project, small_params):
    other, production = make_other(project), Production(small_params.paths.production)
    settings = small_params.model_dump(mode="json")  # what is sent to another process has to be pickled
    seen, step, stride = set(), 1, 9  # of about a hundred steps every ninth; each costs a start of the gate
    while True:
        shutil.rmtree(production.folder, ignore_errors=True)
        production.promote(other, "the first", keep=5)
        if not Stepping(challenge_in, project, settings, at=step).is_killed():
            break
        assert production.standing().problem is None, step
        assert production.history()[-1].sha256 == production.digest, step
        seen.add(production.digest)
        verdict = challenge(small_params, quiet)
        assert verdict.is_accepted, step
        assert production.digest == sha256_of(small_params.paths.onnx), step
        step += stride
    assert step > 4 * stride
    assert seen == {sha256_of(other), sha256_of(small_params.paths.onnx)}


def challenge_in(project: Path, settings: dict) -> None:
    """The gate, in a process of its own."""
    rule.MIN_PHOTOS = 1
    os.chdir(project)
    challenge(Params.model_validate(settings), quiet)


# Where a model comes from.


def _lock(data: str) -> None:
    Path("dvc.lock").write_text(
        f"stages:\n  validate_data:\n    deps:\n    - {{path: data/raw, md5: {data}.dir, size: 1, nfiles: 1}}\n"
    )


def test_the_logs_say_from_which_photos_and_code_a_model_comes_and_what_the_gate_said(project, small_params):
    _lock("a" * 32)
    production = Production(small_params.paths.production)
    challenge(small_params, quiet)
    (change,), (look,) = production.history(), verdict_log(production.folder).read()[0]
    assert change.origin == look.origin == Origin("a" * 32, None, "Promoted")
    assert gate.told(change).endswith("  (photos aaaaaaaaaaaa)")


def test_a_candidate_that_a_person_promotes_later_keeps_what_was_known_of_it(project, small_params, monkeypatch):
    monkeypatch.setattr("regraft.production.gate.rule.MIN_PHOTOS", 1000)
    _lock("a" * 32)
    production = Production(small_params.paths.production)
    production.promote(make_other(project), "the first", keep=5)
    digest = sha256_of(small_params.paths.onnx)
    challenge(changed(small_params, promote={"when_undecided": "keep"}), quiet)
    _lock("b" * 32)
    assert force(small_params, "a test", digest[:12]).origin == Origin("a" * 32, None, "Undecided")
