"""Which splits photos had earlier, so that they keep them.

Two files know it. The data set of the run before has the splits of all its photos. The record is small and belongs into
git: it has the photos whose split the name of their group does not give, because their class lacked another one, or a
near-duplicate or a photo of their group came later; and photos that are not in the data set now and may come back. So a
clone that has the folder and the record places every photo as the original did. It places new photos by name, too: only
with the very data set that belongs to the record it can tell which are new, and counts what their classes lack.
"""

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from regraft.core.errors import Damaged, InvalidData, printable
from regraft.core.files import reading, write_text
from regraft.core.sealed import read_table
from regraft.photos.dataset import COLUMNS, SPLITS, Dataset, texts_of
from regraft.photos.splitting import place

_TITLE = "# Regraft's record of splits: commit it, do not edit it. SHA-256 of the lines below: "
_HEAD = "photo,split"
_SHARES = ("val_share", "test_share")
_DATA_SET = "data_set"  # missing in records of earlier versions, which placed all photos by name


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """Splits that names of groups do not give, and the shares that they were drawn with."""

    val_share: float
    test_share: float
    splits: dict[str, str]  # by digest
    data_set: str = ""  # `digest_of` the splits in the data set that it belongs to


@dataclass(frozen=True, slots=True)
class Earlier:
    """The splits that photos had earlier."""

    splits: dict[str, str]  # by digest
    note: str  # a sentence for the report where some are not known or do not count; else empty
    is_complete: bool = True  # no photo was placed earlier that is not among them; else new ones are placed by name


def read_record(path: Path) -> SplitRecord | None:
    """Return what `write_record` wrote; None if there is no such file.

    Raises:
        InvalidData: it is not as it was written. What to do is up to a person: a photo that was tested could otherwise
            be trained on without a word.
    """
    try:
        title, _, rest = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, printable(str(error))) from None
    if "<<<<<<< " in f"{title}\n{rest}":
        raise InvalidData(
            f"git left a conflict in {path}. Take the side that you take in dvc.lock, with `git checkout --ours` or "
            f"`--theirs`, and run again."
        )
    if title != _TITLE + hashlib.sha256(rest.encode()).hexdigest():
        raise _unusable(path, "lines with another digest: it was edited or is damaged")
    rows = dict(line.split(",") for line in rest.splitlines()[1:])
    val_share, test_share = (float(rows.pop(name)) for name in _SHARES)
    data_set = rows.pop(_DATA_SET, "")
    return SplitRecord(val_share, test_share, rows, data_set)


def write_record(path: Path, record: SplitRecord) -> None:
    """Write the record, in the order of digests, so that git stores and shows what was added."""
    lines = [_HEAD, f"{_SHARES[0]},{record.val_share!r}", f"{_SHARES[1]},{record.test_share!r}"]
    lines += [f"{_DATA_SET},{record.data_set}"] if record.data_set else []
    lines += [f"{digest},{split}" for digest, split in sorted(record.splits.items())]
    rest = "\n".join(lines) + "\n"
    write_text(path, f"{_TITLE}{hashlib.sha256(rest.encode()).hexdigest()}\n{rest}")


def recall(record_path: Path, dataset_path: Path, *, val_share: float, test_share: float) -> Earlier:
    """Return the splits that photos had earlier, as far as they count.

    With other shares the user wants other splits, so none count. A data set that is missing or damaged is as none: DVC
    or the stage that reads this makes it again.

    Raises:
        InvalidData: the record was edited or is damaged.
    """
    record = read_record(record_path)
    if record and (record.val_share, record.test_share) != (val_share, test_share):
        return Earlier(
            {},
            f"Every photo was placed anew: preprocess.val_share and test_share are {val_share:g} and {test_share:g}, "
            f"and were {record.val_share:g} and {record.test_share:g}.",
        )
    before, note = {}, ""
    with suppress(FileNotFoundError):
        try:
            before = _splits_in(dataset_path)
        except Damaged:
            note = f"{dataset_path} was damaged: photos that came since then may have moved others of their group."
    if record is None:
        return Earlier(before, note, is_complete=not note)
    # Of two branches the record is the one that was checked out; the data set may have stayed behind.
    is_complete = digest_of(before) == record.data_set
    before.update(record.splits)
    return Earlier(before, note, is_complete)


def new_record(
    manifest: pd.DataFrame, dataset: Dataset, earlier: Mapping[str, str], *, val_share: float, test_share: float
) -> SplitRecord:
    """Return the record that belongs to a data set.

    With it alone `place` gives the same splits by name: it has all photos of every group whose name gives another one,
    and those with an earlier split that are not in the data set.

    Args:
        manifest: that the data set was built from.
        dataset: from `build_dataset`.
        earlier: splits that it was built with.
        val_share: that it was built with.
        test_share: that it was built with.
    """
    now = dict(zip(texts_of(dataset.rows.digest), map(sys.intern, texts_of(dataset.rows.split)), strict=True))
    splits = {digest: split for digest, split in earlier.items() if digest not in now}
    used = manifest.loc[manifest.verdict == "use", ["digest", "group", "label", "split"]]
    alone = place(used, val_share=val_share, test_share=test_share, by_name=True)
    # Sets and loops: pandas looks up a million texts ten times more slowly.
    rows = zip(*map(texts_of, (used.digest, used.group, alone.split, alone.stays)), strict=True)
    odd = {group for digest, group, split, stays in rows if now.get(digest) != (split if stays else None)}
    members = (
        digest for digest, group in zip(texts_of(used.digest), texts_of(used.group), strict=True) if group in odd
    )
    splits |= {digest: now[digest] for digest in members if digest in now}
    return SplitRecord(val_share, test_share, splits, digest_of(now))


def digest_of(splits: Mapping[str, str]) -> str:
    """Return a digest of the splits of a data set, whatever their order."""
    found = hashlib.sha256()
    for digest in sorted(splits):
        found.update(f"{digest},{splits[digest]}\n".encode())
    return found.hexdigest()


def _splits_in(dataset_path: Path) -> dict[str, str]:
    """The splits of a data set by digest."""
    table = read_table(dataset_path, leave_out=COLUMNS.keys() - {"digest", "split"})
    with reading(dataset_path, "digests and splits"):
        digests, splits = (table.column(name).to_pylist() for name in ("digest", "split"))
        found = dict(zip(digests, map(sys.intern, splits), strict=True))  # of each split one text
        if not set(found.values()) <= set(SPLITS):
            raise ValueError("other splits")
        return found


def _unusable(path: Path, found: str) -> InvalidData:
    return InvalidData(
        f"{path} should hold the splits that photos keep, as Regraft wrote it. Found {printable(found)}. Bring back "
        f"the version that git has (`git checkout -- {path}`), or remove it: then photos keep the splits that they "
        f"have in the data set of the run before, and the rest are placed anew."
    )
