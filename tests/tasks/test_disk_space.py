import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from regraft.core import files
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params
from tasks.disk_space import DATA, check_room

MB = 1_000_000


@pytest.fixture
def params(root: Path) -> Params:
    """The settings of this project."""
    return load_params(root / "params.yaml")


@pytest.fixture
def project(tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose last run wrote 100 MB per stage; DVC, where it is loaded, copies each file to its cache."""
    monkeypatch.chdir(tmp_path)
    outs = {"cache_features": params.paths.features, "fine_tune": params.paths.model, "export_onnx": params.paths.onnx}
    stages = {name: {"outs": [{"path": str(path), "md5": "0" * 32, "size": 100 * MB}]} for name, path in outs.items()}
    YAML().dump({"schema": "2.0", "stages": stages}, Path("dvc.lock"))
    Path(".dvc").mkdir()
    Path(".dvc", "config").write_text("[cache]\n    type = copy\n")
    return tmp_path


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """A function that sets how many megabytes of the disk are free."""
    return lambda megabytes: monkeypatch.setattr(
        files.shutil, "disk_usage", lambda _: SimpleNamespace(free=megabytes * MB)
    )


@pytest.fixture
def without_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is run by hand: nothing is copied to DVC's cache."""
    monkeypatch.delitem(sys.modules, "dvc", raising=False)


@pytest.fixture
def with_dvc() -> None:
    """A stage that DVC runs."""
    import dvc.config  # noqa: F401


@pytest.mark.usefixtures("without_dvc")
def test_a_stage_that_does_not_fit_is_not_begun(project: Path, params: Params, free):
    free(111)
    with pytest.raises(RegraftError, match=r"export_onnx needs about 112\.0 MB in models, and 111\.0 MB are free"):
        check_room(project, params, "export_onnx")
    free(113)
    check_room(project, params, "export_onnx")


@pytest.mark.usefixtures("with_dvc")
def test_the_copy_in_the_cache_counts(project: Path, params: Params, free):
    free(221)
    with pytest.raises(RegraftError, match="about 222"):
        check_room(project, params, "export_onnx")
    free(223)
    check_room(project, params, "export_onnx")


@pytest.mark.usefixtures("with_dvc")
def test_a_file_that_cache_and_project_share_counts_once(project: Path, params: Params, free):
    Path(".dvc", "config").write_text("[cache]\n    type = hardlink\n")
    free(113)
    check_room(project, params, "export_onnx")
    assert [path.name for path in project.iterdir() if path.name.startswith(".") and path.name != ".dvc"] == []


@pytest.mark.usefixtures("without_dvc")
@pytest.mark.parametrize("lock", [None, "damaged: ["])
def test_where_nothing_is_known_a_little_is_enough(project: Path, params: Params, free, lock: str | None):
    Path("dvc.lock").unlink()
    if lock:
        Path("dvc.lock").write_text(lock)
    free(25)
    check_room(project, params, "cache_features")
    free(20)
    with pytest.raises(RegraftError, match="room"):
        check_room(project, params, "cache_features")


@pytest.mark.usefixtures("with_dvc")
def test_photos_that_dvc_does_not_have_yet_need_room_in_its_cache_and_copies_of_one_do_not(
    project: Path, params: Params, free
):
    raw = project / params.paths.raw
    for name, size in {"1.jpg": 3 * MB, "2.jpg": 5 * MB, "copy.jpg": 5 * MB}.items():
        (raw / "cat").mkdir(parents=True, exist_ok=True)
        with (raw / "cat" / name).open("wb") as file:
            file.truncate(size)
    free(1)
    check_room(project, params, DATA)  # nothing is recorded: DVC may have all of it
    raw.with_name("raw.dvc").write_text(f"outs:\n- path: raw\n  size: {3 * MB}\n  nfiles: 1\n  md5: x.dir\n")
    free(7)
    with pytest.raises(RegraftError, match=r"record_data needs about 7.5 MB in \.dvc/cache"):
        check_room(project, params, DATA)
    free(8)
    check_room(project, params, DATA)
