from regraft.files import read_json, sha256_of
from tasks.quantise import quantise
from tests.support.small_project import quiet


def test_switched_off_the_file_is_that_in_float32_byte_for_byte_and_the_report_says_so(project, small_params):
    quantise.function(small_params, quiet)
    report = read_json(project / "reports" / "int8.json")
    assert sha256_of(project / "models" / "model.int8.onnx") == sha256_of(project / "models" / "model.onnx")
    assert (report["rung"], report["words"]) == ("float32", "quantise.mode is off")
