from regraft.features.table import read_features
from regraft.files import read_json, sha256_of
from regraft.photos.manifest import read_manifest
from regraft.production.registry import Production
from regraft.production.training_data import read_reference
from tasks.promote import challenge
from tests.support.small_project import quiet


def test_a_model_goes_into_production_with_what_it_was_trained_on(project, small_params):
    verdict = challenge(small_params, quiet)
    assert verdict is not None
    assert verdict.is_accepted
    path = Production(small_params.paths.production).reference
    assert path is not None
    reference = read_reference(path)
    _, manifest = read_manifest(small_params.paths.manifest)
    assert sorted(reference.rows.digest) == sorted(manifest.digest)
    assert len(reference.features) == 72
    assert reference.namespace == read_features(small_params.paths.features).namespace


def test_a_model_that_is_in_production_already_is_left_alone(project, small_params):
    challenge(small_params, quiet)
    before = Production(small_params.paths.production).history()
    assert challenge(small_params, quiet) is None
    assert Production(small_params.paths.production).history() == before


def test_a_model_is_promoted_although_what_it_was_trained_on_is_not_known_any_more(project, small_params):
    small_params.paths.features.unlink()
    verdict = challenge(small_params, quiet)
    assert verdict is not None
    assert verdict.is_accepted
    assert Production(small_params.paths.production).reference is None


def test_what_the_gate_said_is_written_for_the_report_with_the_model_that_it_is_about(project, small_params):
    challenge(small_params, quiet)
    verdict = read_json(project / "reports" / "verdict.json")
    assert verdict["about"]["model"] == sha256_of(project / "models" / "model.onnx")
    assert (verdict["is_accepted"], verdict["champion"]) == (True, None)
    assert verdict["challenger"]["accuracy_low"] < verdict["challenger"]["accuracy"]
    assert verdict["challenger"]["images"] == read_json(project / "reports" / "metrics.json")["test"]["images"]
