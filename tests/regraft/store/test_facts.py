"""Facts of contents in the store: sealed files that any machine may add to."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regraft.core.provenance import take_snapshot
from regraft.photos.known import ContentFacts
from regraft.store import facts as store_facts
from regraft.store.facts import Facts
from regraft.store.remote import Remote
from regraft.store.upkeep import collect

PHOTO = ContentFacts(format="PNG", width=3, height=2, mode="RGB", brightness=0.1, phash="00" * 32, bytes=99)
TEXT = ContentFacts(problem="no image", start=b"\x00words", bytes=6)
CONTENTS = {"0a" * 32: PHOTO, "0b" * 31 + "00": TEXT}  # one ends in a zero, which NumPy cuts from a text
VERSIONS = {("https://host/a.png", "e1"): "0a" * 32}


def facts_in(root: Path, shared: str | None = None, max_pixels: int = 100) -> Facts:
    return Facts(root, shared, max_pixels=max_pixels)


def files_of(root: Path) -> list[Path]:
    return sorted(root.glob("facts/*/*.parquet"))


def test_what_was_added_is_found_by_the_next_process(tmp_path):
    facts_in(tmp_path).add(CONTENTS, VERSIONS)
    facts = facts_in(tmp_path)
    assert facts.find([*CONTENTS, "ff" * 32]) == CONTENTS
    assert facts.digests_of([*VERSIONS, ("https://host/a.png", "e2")]) == VERSIONS


def test_no_address_is_kept(tmp_path):
    facts_in(tmp_path).add({}, VERSIONS)
    assert b"host" not in files_of(tmp_path)[0].read_bytes()


def test_what_is_damaged_goes_and_counts_as_not_known(tmp_path):
    facts_in(tmp_path).add(CONTENTS, {})
    (path,) = files_of(tmp_path)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 3] ^= 1
    path.write_bytes(contents)
    assert facts_in(tmp_path).find(list(CONTENTS)) == {}
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("what", ["pixels", "code", "pillow"])
def test_another_limit_other_code_or_another_pillow_knows_nothing(tmp_path, monkeypatch, what):
    facts_in(tmp_path).add(CONTENTS, {})
    now = take_snapshot()
    if what == "code":
        now = replace(now, modules=now.modules | {"regraft.photos.decoder": b"new = 1"})
    if what == "pillow":
        now = replace(now, versions=now.versions | {"pillow": "9.9"})
    monkeypatch.setattr("regraft.core.provenance.take_snapshot", lambda: now)
    assert facts_in(tmp_path, max_pixels=99 if what == "pixels" else 100).find(list(CONTENTS)) == {}


def test_two_machines_share_what_they_know(tmp_path, s3_server):
    shared = "s3://bucket/shared-facts"
    facts_in(tmp_path / "one", shared).add(CONTENTS, {})
    facts_in(tmp_path / "two").add({}, VERSIONS)  # while it had no shared store
    assert facts_in(tmp_path / "two", shared).find(list(CONTENTS)) == CONTENTS
    assert facts_in(tmp_path / "three", shared).digests_of(list(VERSIONS)) == VERSIONS


def test_a_file_that_was_damaged_before_it_was_sent_is_not_sent(tmp_path, s3_server):
    facts_in(tmp_path / "one").add(CONTENTS, {})
    (file,) = files_of(tmp_path / "one")
    file.write_bytes(file.read_bytes()[:-9] + b"?" + file.read_bytes()[-8:])
    shared = "s3://bucket/facts-damaged"
    assert facts_in(tmp_path / "one", shared).find(list(CONTENTS)) == {}
    assert facts_in(tmp_path / "two", shared).find(list(CONTENTS)) == {}
    assert files_of(tmp_path / "two") == []


@pytest.mark.parametrize("shared", [None, "s3://bucket/facts-merged"])
def test_many_small_files_become_one_here_and_in_the_shared_store(tmp_path, s3_server, monkeypatch, shared):
    monkeypatch.setattr(store_facts, "MANY", 3)
    one, two, three = (tmp_path / name for name in (("one", "two", "three") if shared else ("one", "one", "one")))
    numbers = {f"{number:064x}": replace(PHOTO, width=number) for number in range(4)}
    for digest, facts in numbers.items():
        facts_in(one, shared).add({digest: facts}, VERSIONS)
    assert len(files_of(one)) == 8
    assert Facts(two, shared, max_pixels=100, merges=True).find(list(numbers)) == numbers
    assert len(files_of(two)) == 2
    assert facts_in(three, shared).find(list(numbers)) == numbers
    assert facts_in(three, shared).digests_of(list(VERSIONS)) == VERSIONS
    assert len(files_of(three)) == 2


def test_facts_that_another_project_reads_every_night_and_never_adds_to_are_not_collected(tmp_path, capsys):
    shared = f"memory://{tmp_path}/shared"
    mine, theirs = facts_in(tmp_path / "mine", shared), facts_in(tmp_path / "theirs", shared, max_pixels=1)
    for facts in (mine, theirs):
        facts.add(CONTENTS, {})
    Remote(shared).write(f"{theirs.name}/{'0' * 32}.contents.parquet", b"")  # and only there
    make_old(shared)
    assert facts_in(tmp_path / "theirs", shared, max_pixels=1).find(list(CONTENTS)) == CONTENTS
    collect(tmp_path / "mine", shared, {}, in_use=[mine.name], really=True)
    assert theirs.name not in capsys.readouterr().out
    assert facts_in(tmp_path / "fresh", shared, max_pixels=1).find(list(CONTENTS)) == CONTENTS
    make_old(shared)
    collect(tmp_path / "mine", shared, {}, in_use=[mine.name], really=True)
    assert f"{theirs.name}: all of it" in capsys.readouterr().out
    assert Remote(shared).folders("facts") == [Path(mine.name).name]


def make_old(shared: str) -> None:
    for path, file in MemoryFileSystem.store.items():
        if path.startswith(f"{shared.removeprefix('memory://')}/facts/"):
            file.modified = datetime(2020, 1, 1, tzinfo=UTC)
