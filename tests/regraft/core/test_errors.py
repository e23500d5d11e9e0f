import traceback

import pytest

from regraft.core.errors import Damaged, InvalidData, RegraftError, printable, some


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("c1\x9b", r"c1\x9b"),  # a terminal takes it for ESC [
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),  # shown from right to left it would end in .jpg
        ("a\u200b\u2028\ufeff", r"a\u200b\u2028\ufeff"),
        ("\udce9.png", r"\udce9.png"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_shown_as_its_number(name, shown):
    assert printable(name) == shown
    assert shown.isprintable()
    assert name not in some([name])


def test_a_name_without_end_is_cut_and_both_ends_are_shown():
    shown = printable("start" + "x" * 10**6 + "end")
    assert shown.startswith("start")
    assert shown.endswith("end")
    assert len(shown) < 500


@pytest.mark.parametrize("kind", [RegraftError, InvalidData, Damaged])
def test_a_message_does_nothing_in_a_terminal_whatever_it_quotes_and_whoever_prints_it(kind):
    error = kind("labels:\n\x1b]0;owned\x07 \x9b31m a\u202eb\r \x00 été 日本")
    text = "".join(traceback.format_exception(error))
    assert not set("\x1b\x07\x9b\u202e\r\x00") & set(text)
    assert str(error) == r"labels:" + "\n" + r"\x1b]0;owned\x07 \x9b31m a\u202eb\r \x00 été 日本"
