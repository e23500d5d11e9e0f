"""Whatever lies beside the store, or in its folders, and is not Regraft's stays: in a bucket, in a home directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.store.namespace import Namespace, open_namespace
from regraft.store.upkeep import collect, compact
from regraft.store.uses import record_use
from tests.support.store import KEYS, fill

VERSION, OTHER = "a" * 32, "b" * 32
FOLDERS = [
    "holiday/1.jpg",
    "features-0123456789abcdef/notes.txt",  # named like a namespace, and nothing says what it is
    "features-0123456789abcdef/namespace.json",
    f"features-0123456789abcdef/{'0' * 16}-1-2-{'0' * 16}.arrow",
    "models-0123456789abcdef/x/deep.bin",
    "backups/namespace.json",
    "backups/old.damaged",
    "backups/.draft.1.tmp.arrow",
    "Features-0123456789abcdef/namespace.json",
    "uses/readme.txt",
    "uses/2024.arrow",
    "leases/flat.json",
    "leases/contract-2024.json",
    "leases/.contract.1.tmp.json",
    "graphs/.plan.1.tmp.onnx",
    "top.txt",
    ".bashrc",
]


@pytest.fixture(params=["local", "shared"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return f"file://{tmp_path}/bucket" if request.param == "shared" else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def opened(root: Path, shared: str | None) -> Callable[..., Namespace]:
    return lambda kind="features": open_namespace(root, kind, {}, shape=(4,), dtype="float32", shared=shared)


@pytest.fixture
def places(root: Path, shared: str | None, tmp_path: Path) -> list[Path]:
    """Folders in which other people's files lie too."""
    places = [root, *([tmp_path / "bucket"] if shared else [])]
    for place in places:
        for name in FOLDERS:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("mine")
    return places


def gc(root: Path, shared: str | None) -> None:
    collect(root, shared, {VERSION: "here"}, stale_days=0, really=True)


@pytest.mark.parametrize("command", [gc, compact])
def test_what_is_not_ours_stays(opened, root, shared, places, command):
    fill(opened(), 0, 1)
    fill(opened(), 2)
    fill(opened("unneeded"), 0)
    record_use(root, VERSION, [opened()], KEYS[:1], shared=shared)
    command(root, shared)
    for place in places:
        assert {name: (place / name).read_text() for name in FOLDERS} == dict.fromkeys(FOLDERS, "mine")
        assert bool(list(place.glob("unneeded-*"))) == (command is compact)
    assert opened().missing(KEYS[:3]) == (KEYS[1:3] if command is gc else [])


@pytest.mark.parametrize("needed", [True, False])
def test_files_of_others_inside_a_namespace_stay_and_are_named(opened, root, shared, places, capsys, needed):
    store = opened()
    fill(store, 0, 1)
    foreign = ["mine.arrow", "mine.damaged", "x.parquet", ".mine.1.tmp.arrow", f"{'0' * 16}-1-2-xyz.arrow", "sub/x"]
    for place in places:
        for name in foreign:
            (place / store.folder.name / name).parent.mkdir(exist_ok=True)
            (place / store.folder.name / name).write_text("mine")
    record_use(root, VERSION, [store] if needed else [], KEYS[:1], shared=shared)
    gc(root, shared)
    for place in places:
        assert all((place / store.folder.name / name).read_text() == "mine" for name in foreign)
    if not needed:
        assert f"{store.folder.name}: left alone, since Regraft did not write it:" in (said := capsys.readouterr().out)
        assert "x.parquet" in said
        assert not list(root.glob(f"{store.folder.name}/*-*-*-{'[0-9a-f]' * 16}.*"))
