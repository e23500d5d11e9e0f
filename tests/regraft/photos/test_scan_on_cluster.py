import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import Seat
from regraft.core.errors import RegraftError
from regraft.photos import decoder, elsewhere, scan, scan_on_cluster
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.known import Learning
from regraft.photos.labels_file import Found
from regraft.photos.scan_elsewhere import scan_elsewhere
from regraft.photos.scan_facts import FileFacts
from regraft.photos.scan_on_cluster import ClusterReaders, FetchJob, FileJob
from regraft.store.facts import Facts
from tests.support.photo_server import PhotoServer, elsewhere_in, png, serving

LIMITS = DecodeLimits(max_pixels=10_000, max_seconds=20)
KNOWN = partial(Facts, shared=None, max_pixels=LIMITS.max_pixels)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos that are old to this process, one that would be a bomb, and a file that is none."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(png(number))
    Image.new("L", (1000, 1000)).save(folder / "bomb.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    monkeypatch.setattr(scan, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + 60 * 10**9))
    return folder


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    """A worker that sees the store."""
    return Seat(threads=2, neighbours=1, store=tmp_path / "store")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PhotoServer]:
    monkeypatch.setattr(elsewhere, "_PAUSES", ())
    with serving() as running:
        yield running


def readers_in(tmp_path: Path) -> ClusterReaders:
    return ClusterReaders(Cluster("local:1", threads=2, show=print, tell=print), tmp_path / "store", KNOWN)


def wanted(folder: Path) -> dict[str, None]:
    return dict.fromkeys(sorted(path.name for path in folder.iterdir()))


def scanned(folder: Path, learning: Learning) -> dict[str, list]:
    """Return what a scan finds, without the moment when it did."""
    paths = list(wanted(folder))
    found = scan.scan(folder, paths, limits=LIMITS, threads=Threads(2), cache=None, learning=learning)
    names = ("digest", "bytes", "phash", "sharpness", "problem", "meant_as_image")
    return {path: [getattr(facts, name) for name in names] for path, facts in found.items(paths)}


def test_workers_find_what_this_process_finds_and_no_bomb_ends_them(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scan_on_cluster, "_FEW", 1)
    alone = scanned(folder, Learning())
    monkeypatch.setattr(scan, "Reading", lambda *_: lambda *_: pytest.fail("it was read here"))
    learning = Learning(readers=readers_in(tmp_path))
    assert scanned(folder, learning) == alone
    assert "validate_data.max_pixels" in alone["bomb.png"][4]
    assert learning.decoded == 8
    assert "lost" not in capsys.readouterr().out


def test_what_a_worker_has_decoded_is_written_down_here_and_no_worker_decodes_it_again(folder, seat):
    first = FileJob(folder, LIMITS, KNOWN, None).begin(seat)(list(wanted(folder).items()))
    here = Learning(KNOWN(seat.store))
    here.note(first.findings)
    here.write()
    again = FileJob(folder, LIMITS, KNOWN, None).begin(seat)(list(wanted(folder).items()))
    assert (first.findings.decoded, here.decoded, again.findings.decoded) == (8, 8, 0)
    assert [facts.digest for _, facts in again.facts] == [facts.digest for _, facts in first.facts]


class Blind:
    """Workers that cannot read anything."""

    def read(self, root, files, limits, learning):
        return ((path, FileFacts(problem="cannot be read: Permission denied")) for path in files)

    def fetch(self, elsewhere, photos, limits, learning):
        return ((photo.path, FileFacts(problem="cannot be fetched: a private network")) for photo, _ in photos)


def test_what_a_worker_cannot_open_is_read_here(folder):
    assert scanned(folder, Learning(readers=Blind())) == scanned(folder, Learning())


def test_what_a_worker_cannot_fetch_is_fetched_here(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Inspectors, "inspect", lambda _, path: decoder.inspect(path, max_pixels=LIMITS.max_pixels))
    photos, source = [Found(server.add("0.png", png(0))), Found(f"{server.url}/gone.png")], elsewhere_in(tmp_path)
    found = scan_elsewhere(photos, source, limits=LIMITS, threads=Threads(1), learning=Learning(readers=Blind()))
    assert [found[photo.path].problem for photo in photos] == [
        None,
        "cannot be fetched: there is no such photo (status 404)",
    ]
    assert source.fetches.photos == 1


def test_a_worker_on_whose_mount_inodes_differ_does_not_have_files_read_again_every_night(
    folder, tmp_path, monkeypatch
):
    def work_on(cluster, job, items, *, store, name):
        part = job.begin(Seat(1, 1, store))(items)  # this process is the worker: another one takes seconds to start
        facts = [(path, replace(each, state=elsewhere_state(each.state))) for path, each in part.facts]
        yield replace(part, facts=facts)

    def elsewhere_state(state: str) -> str:
        size, mtime, inode, ctime = state.split()
        return f"{size} {mtime} {int(inode) + 1} {ctime}"

    monkeypatch.setattr(scan_on_cluster, "_FEW", 1)
    monkeypatch.setattr(scan_on_cluster, "work_on", work_on)
    paths, cache, readers = ["0.png", "1.png"], tmp_path / "scan.parquet", readers_in(tmp_path)
    scan.scan(folder, paths, limits=LIMITS, threads=Threads(1), cache=cache, learning=Learning(readers=readers))
    (folder / "1.png").write_bytes(png(1))
    monkeypatch.setattr(scan, "Reading", lambda *_: lambda path, _: FileFacts(problem=f"{path} is read again"))
    found = scan.scan(folder, paths, limits=LIMITS, threads=Threads(1), cache=cache)
    assert [facts.problem for _, facts in found.items(paths)] == [None, "1.png is read again"]


def test_a_worker_that_does_not_see_the_data_folder_is_refused(folder, seat, tmp_path):
    sample = scan_on_cluster._sample(folder, wanted(folder))
    FileJob(folder, LIMITS, KNOWN, sample).begin(seat)
    with pytest.raises(RegraftError, match=r"It cannot read 0\.png in .*Mount the same data folder"):
        FileJob(tmp_path, LIMITS, KNOWN, sample).begin(seat)


def test_a_worker_fetches_photos_at_addresses_and_says_how_many(server, seat, tmp_path):
    urls = [server.add(f"{number}.png", png(number)) for number in range(3)]
    job = FetchJob(elsewhere_in(tmp_path), LIMITS, KNOWN, [urls[0], f"{server.url}/gone.png"])
    part = job.begin(seat)([(Found(url), None) for url in [*urls, f"{server.url}/gone.png"]])
    assert [facts.problem is None for _, facts in part.facts] == [True, True, True, False]
    assert (part.fetched.photos, part.findings.decoded, len(part.findings.contents)) == (3, 3, 3)
    assert len(list((tmp_path / "store" / "photos").iterdir())) == 3
