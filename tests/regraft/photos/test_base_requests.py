import pytest

from regraft.core.errors import InvalidData
from regraft.photos.base_requests import add_request, read_requests, write_requests

BASE, OTHER = "0" * 16, "1" * 16


def test_requests_come_back_in_their_order_and_each_base_is_asked_for_once(tmp_path):
    path = tmp_path / "base_renewals.csv"
    assert read_requests(path) == {}
    assert add_request(path, BASE, "the gate, twice")
    assert not add_request(path, BASE, "again")
    assert add_request(path, OTHER, 'said "no"')
    assert read_requests(path) == {BASE: "the gate, twice", OTHER: 'said "no"'}
    assert path.read_text().splitlines()[0] == "base,reason"


def test_a_reason_is_one_printable_line(tmp_path):
    add_request(tmp_path / "a.csv", BASE, "one\ntwo\x1b[2J" + "x" * 1000)
    (reason,) = read_requests(tmp_path / "a.csv").values()
    assert reason.startswith("one two\\x1b[2Jxxx")
    assert len(reason) == 500


def test_half_a_line_and_what_git_leaves_of_a_conflict_are_no_requests(tmp_path):
    path = tmp_path / "a.csv"
    write_requests(path, {BASE: "why"})
    with path.open("a") as file:
        file.write(f"<<<<<<< mine\n{OTHER},theirs\n=======\n0000")
    assert read_requests(path) == {BASE: "why", OTHER: "theirs"}


@pytest.mark.parametrize("contents", [b"", b"photo,split\n", b"\xff\xfe", b"x" * 200_000])
def test_another_file_is_refused_with_what_to_do(tmp_path, contents):
    (tmp_path / "a.csv").write_bytes(contents)
    with pytest.raises(InvalidData, match=r"base,reason.*git checkout"):
        read_requests(tmp_path / "a.csv")
