"""CSV files that people open: a name comes back whole, and does nothing in a spreadsheet, a terminal or a web page."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.core.csv_files import read_csv, write_csv
from regraft.core.errors import Damaged, name_of, shown

# Letters that mean something somewhere, and any others.
LETTERS = st.one_of(st.characters(), st.sampled_from("<>&;\\=+-@'\"\t\r\n\x1b\x07\u202e\u2028\uff1d ,|x0u1a"))
FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "'=1", "''=1", "\uff1d1", "=HYPERLINK(1)", "\x0b=1"]


def cells_of(path: Path, separator: str = ",") -> list[str]:
    """The cells that a spreadsheet shows whose separator this is."""
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file, delimiter=separator) for cell in row]


@given(st.text(LETTERS))
def test_a_name_comes_back_whole(name):
    assert name_of(shown(name)) == name


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_begins_like_a_formula_whatever_a_spreadsheet_takes_for_a_separator(tmp_path, separator):
    names = [*FORMULAS, *(f"a{between}{name}" for name in FORMULAS for between in (";", "\t", '";'))]
    write_csv(tmp_path / "a.csv", pd.DataFrame({"name": names, "=formula": names, "number": -1.5}))
    cells = cells_of(tmp_path / "a.csv", separator)
    assert not [cell for cell in cells if cell.lstrip(" \"'").startswith(tuple("=+@")) and not cell.startswith("'")]
    back = read_csv(tmp_path / "a.csv", {"name": str, "=formula": str, "number": float})
    assert back["name"].tolist() == back["=formula"].tolist() == names


@pytest.mark.parametrize(
    "text",
    ["", "name\nx\n", "name,number\nx,y\n", "number,name\n1,x\n"],
)
def test_another_table_is_damaged(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Damaged, match=r"a\.csv is damaged: expected CSV with the columns name, number"):
        read_csv(tmp_path / "a.csv", {"name": str, "number": int})
