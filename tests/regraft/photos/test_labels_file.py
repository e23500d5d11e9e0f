"""Class names and labels.csv from people and programs that nobody trusts."""

import csv
import os
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regraft.core.errors import InvalidData, is_invisible
from regraft.photos import label_rows
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.manifest import find_files
from regraft.photos.photo_urls import carries_secret, may_hold_secret, problem_of_url, shown_url
from regraft.photos.splitting import build_dataset
from tests.support.library import scan_folder

ODD = {
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "\x1b[31mred",
    "c1 control": "a\x9b31mb",
    "bidi override": "a\u202egpj",
    "zero width space": "a\u200bb",
    "word joiner alone": "\u2060",
    "joiners alone": "\u200d\u200c \u200d",
    "line separator": "a\u2028b",
    "soft hyphen": "a\u00adb",
    "lone surrogate": "a\ud800b",
    "tag": "a\U000e0041",
    "noncharacter": "a\uffff",
    "nothing": "",
    "spaces": "  \u00a0\u3000 ",
    "256 bytes": "x" * 256,
    "256 bytes in Chinese": "番" * 86,
    "endless": "x" * 10**6,
}
GOOD = [
    "Äpfel",
    "ripe tomato",
    "西红柿",
    "می‌خواهم",
    "👩‍🌾",
    "a/b",
    "$\\frac{a$",
    "<script>",
    "=1+1",
    "nan",
    ".",
    "x" * 255,
]


@pytest.mark.parametrize("what", ODD)
def test_a_class_name_that_would_break_or_forge_a_report_has_a_problem_that_can_be_printed(what):
    problem = problem_of(normalised(ODD[what]))
    assert problem
    assert not any(map(is_invisible, problem))
    assert len(problem) < 500


def add(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 9, 9)).save(folder / path, "PNG")


def test_they_are_quarantined_with_it(tmp_path):
    add(tmp_path, "cat/a.png", "c\x1b[31mat/b.png")
    odd = scan_folder(tmp_path)[1].iloc[0]
    assert (odd.verdict, odd.path) == ("quarantine", r"c\x1b[31mat/b.png")
    assert odd.reason.startswith(r"the class name 'c\x1b[31mat' has a control character")


@pytest.mark.parametrize("name", ["a\x1b[2Jb.png"])
def test_a_photo_whose_name_would_break_a_table_is_quarantined_under_a_name_that_does_not(tmp_path, name):
    add(tmp_path, "cat/a.png", f"cat/{name}")
    _, manifest = scan_folder(tmp_path)
    row = manifest[manifest.verdict == "quarantine"].iloc[0]
    assert row.path == "cat/" + ascii(name)[1:-1]
    assert row.reason == "the name has a control character; rename the file or its folder"


@pytest.mark.parametrize("what", ["newline", "bidi override", "256 bytes"])
def test_such_a_label_in_labels_csv_is_refused_by_line(tmp_path, what):
    add(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text(f'path,label\na.png,"cat"\nb.png,"{ODD[what]}"\n', newline="")
    with pytest.raises(
        InvalidData, match=r"has 1 line\(s\) to fix: line \d: b\.png:? (the class|has no label)"
    ) as error:
        find_files(tmp_path)
    assert not any(map(is_invisible, str(error.value)))


def test_good_names_come_through_to_the_data_set(tmp_path):
    paths = [f"{number}.png" for number in range(10 * len(GOOD))]
    add(tmp_path, *paths)
    rows = "".join(f'{path},"{GOOD[number % len(GOOD)]}"\n' for number, path in enumerate(paths))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}", encoding="utf-8")
    _, manifest = scan_folder(tmp_path)
    manifest["group"] = manifest.digest
    assert set(build_dataset(manifest, tmp_path, val_share=0.1, test_share=0.1).class_names) == set(GOOD)


# labels.csv as a file.


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidData) as error:
        find_files(folder)
    assert str(error.value).replace("\n", "").isprintable()
    assert len(str(error.value)) < 4000
    return str(error.value)


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_link_out(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def as_ten_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 10**9)  # takes no room


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (as_pipe, r"labels.csv (a named pipe)"),
        (as_link_out, "labels.csv -> /etc/passwd"),
        (as_ten_gigabytes, "labels.csv must have at most 536.9 MB. Received: 10.0 GB"),
        (lambda path: path.write_bytes(b"path,label\n" + b"\0" * 99 + b",cat\n"), r"not there: \x00\x00"),
        (lambda path: path.write_bytes("path,label\na.png,Äpfel\n".encode("latin-1")), "is not a CSV file in UTF-8"),
        (
            lambda path: path.write_text(f"path,label\n{'x' * 4_097},cat\n"),
            "line 2: column 'path' must have at most 4,096 letters. Received: 4,097; shorten it",
        ),
        (lambda path: path.write_text("path,label\n\x1b[2J.png,cat\n"), r"\x1b[2J.png"),
        (lambda path: path.write_text('path,label\n"a.png'), "is not a CSV file in UTF-8: unexpected end of data"),
    ],
)
def test_a_hostile_labels_csv_is_a_message_and_no_traceback(tmp_path, make, message):
    add(tmp_path, "a.png")
    make(tmp_path / "labels.csv")
    assert message in refusal(tmp_path)


LONG = ["a:", "':", "::a", "=", "?", "a?", "%25", "a.", "://", "/", "@", "a@", "e\u0301\u0315", "token=", "\\"]


@pytest.mark.parametrize("part", LONG)
@pytest.mark.parametrize("start", ["", "s3://bucket/", "https://host/", "x?"])
def test_no_text_of_a_table_takes_the_square_of_its_length(tmp_path, part, start):
    cell = (start + part * 65_000)[:130_000]
    columns = ["path", "label", "split", "group", "sha256", "etag", "camera"]
    rows = [{"path": f"{number}.png", "label": "cat"} | {column: cell} for number, column in enumerate(columns)]
    with (tmp_path / "labels.csv").open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    began = time.process_time()
    assert "has 7 line(s) to fix" in refusal(tmp_path)
    assert problem_of(normalised(cell))
    assert may_hold_secret(cell)
    # Of those that are as long as a path may be, too.
    texts = [start + part * (4_000 // len(part)) + end for end in ("", "u:pw@h", "@h", "?a")]
    for text in texts:
        may_hold_secret(text), problem_of_url(text, ("s3", "https")), problem_of(normalised(text)), shown_url(text)
    assert time.process_time() - began < 2  # a busy machine takes 0.1


@pytest.mark.parametrize("text", ["a:b@h", "a::b@h", "x/:a:b@h", "a@b:c@d", "::a:b:c@h", " a:b@h", "a:b@h@i"])
def test_a_password_before_a_host_is_found_among_colons(text):
    assert carries_secret(text)


@pytest.mark.parametrize("text", ["a:@h", ":b@h", "a:b@ h", "a:b@/h", "a:b/c@h", "a:b c@h", "::@h", "a@b:c"])
def test_colons_alone_are_no_password(text):
    assert not carries_secret(text)


@pytest.mark.parametrize("path", ["folder/a.png"])
def test_a_path_in_labels_csv_does_not_leave_the_folder_by_a_link(tmp_path, path):
    add(tmp_path, "raw/a.png", "outside/a.png")
    target = tmp_path / "outside" / ("a.png" if "link" in path else "")
    (tmp_path / "raw" / path.split("/")[0]).symlink_to(target)
    (tmp_path / "raw/labels.csv").write_text(f"path,label\n{path},cat\n")
    assert "links that leave the data folder" in refusal(tmp_path / "raw")


SECRETS = [
    "https://u:SECRET@host/a.jpg?X-Amz-Signature=SECRET",
    "//host/SECRET/a.jpg?token=SECRET",
    "host/x.jpg?token=SECRET",
    "u:SECRET@host/a.jpg",
    "https://host/a.jpg?token=SECRET" + "x" * 300,
    "host/x.jpg?SECRET",
    "host/x.jpg%3Ftoken%3DSECRET",
    "host/SECRET/x.jpg?w=2",
    "folder/u:SECRET@host/a.jpg",
    "\\\\host\\SECRET\\a.jpg",
    "X-Amz-Signature=SECRET",
]
NO_SECRETS = ["what?", "a@2x", "who? me=you", "iso=100;f=2.8", "50%", "R&D", "12:30", "user@host", "(?)", "=1+1", "sig"]


@pytest.mark.parametrize("column", ["path", "label", "split", "group", "camera"])
@pytest.mark.parametrize("text", SECRETS)
def test_what_may_be_a_secret_in_a_table_is_not_shown(tmp_path, column, text):
    add(tmp_path, "a.png")
    row = {"path": "a.png", "label": "cat", "split": "", "group": "", "camera": ""} | {column: text}
    for folder, header in (("lines", ",".join(row)), ("header", "path," + text)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.csv").write_text(f"{header}\n{','.join(row.values())}\n")
    assert "SECRET" not in refusal(tmp_path / "lines")
    assert "SECRET" not in refusal(tmp_path / "header")


@pytest.mark.parametrize("text", NO_SECRETS)
def test_marks_that_addresses_have_too_are_taken_in_names(tmp_path, text):
    add(tmp_path, f"a/{text}.png")
    (tmp_path / "labels.csv").write_text(f"path,label,group,camera\na/{text}.png,{text},{text},{text}\n")
    found = {found.path: found for found in find_files(tmp_path)[1]}[f"a/{text}.png"]
    assert (found.label, found.group, found.slices) == (text, text, (text,))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_text_that_many_rows_of_a_parquet_file_share_is_held_once(tmp_path, kind):
    count = 20_000
    column = pa.array(["x" * 4_000] * count, pa.string()).cast(kind)
    columns = {"path": [f"{n}.png" for n in range(count)], "label": ["cat"] * count, "camera": column}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    tracemalloc.start()
    texts = {id(row["camera"]) for _, row in label_rows.rows_of(tmp_path, "labels.parquet")}
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(texts) < 10
    assert most < 50 * 10**6  # of 80 MB: two batches of 4,096 rows
