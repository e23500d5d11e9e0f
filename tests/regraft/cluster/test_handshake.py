import pytest

from regraft.cluster.handshake import differences, facts_of
from regraft.core.provenance import LIBRARIES


@pytest.fixture(scope="module")
def facts():
    return facts_of("regraft.features.on_cluster")


def changed(facts, kind: str, **values: str | None):
    """Return the facts of a worker in which some differ; None: it lacks them."""
    theirs = {name: value for name, value in {**facts[kind], **values}.items() if value is not None}
    return {**facts, kind: theirs}


def test_two_processes_of_one_machine_do_not_differ(facts):
    assert differences(facts, facts_of("regraft.features.on_cluster")) == ""


@pytest.mark.parametrize("library", ["pillow", "onnxruntime", "numpy", "libjpeg_turbo", "pi-heif"])
def test_another_library_that_computes_is_named_with_both_versions(facts, library):
    assert differences(facts, changed(facts, "libraries", **{library: "0.1"})) == (
        f"libraries: {library}: expected {facts['libraries'][library]}, received 0.1"
    )


def test_other_sources_are_named_by_module(facts):
    theirs = changed(facts, "sources", **{"regraft.photos.views": "0" * 16, "regraft.core.files": None})
    assert differences(facts, theirs) == "sources that differ: regraft.core.files; regraft.photos.views"


def test_another_processor_is_named(facts):
    words = differences(facts, changed(facts, "processor", instructions="avx2 fma"))
    assert words.endswith("received avx2 fma")
    assert words.startswith("processor: instructions: expected ")


def test_a_worker_needs_neither_tensorflow_nor_keras(facts):
    assert {"tensorflow", "keras", "tf2onnx"} <= LIBRARIES.keys()
    assert not {"tensorflow", "keras", "tf2onnx"} & facts["libraries"].keys()


def test_the_sources_are_all_that_computing_runs(facts):
    expected = {"regraft.photos.images", "regraft.photos.views", "regraft.backbones.runners", "regraft.store.shards"}
    assert expected <= facts["sources"].keys()


def test_an_answer_of_an_older_worker_counts_as_different(facts):
    assert "architecture: expected" in differences(facts, {"sources": facts["sources"]})
