from __future__ import annotations

import pytest

from plait.screen import one_line, printable, show_error


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b]0;t\x07", "␛[31mred␛]0;t␇"),
        ("\x00\x7f\x85\x9b", "␀␡��"),
        ("a\r\nb\r", "a\nb"),
        ("over\rwrite", "over␍write"),
        ("\ud800", "�"),
        ("a\u00a0b 日本 👨‍👩‍👧 שלום", "a\u00a0b 日本 👨‍👩‍👧 שלום"),
    ],
)
def test_printable(given: str, safe: str) -> None:
    assert printable(given) == safe


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (" a\n b\tc ", "a b c"),
        ("12345", "12345"),
        ("123456", "12345…"),
        ("1" + " " * 30 + "2", "1…"),
        ("\u202egp\x1b", "�gp␛"),
    ],
)
def test_one_line(given: str, line: str) -> None:
    assert one_line(given, 5) == line


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(ValueError("two\nlines \x1b[2J"))
    assert capsys.readouterr() == ("", "plait: two lines ␛[2J\n")


def test_an_error_with_its_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_DEBUG", "1")
    show_error(ValueError("why"), "a sentence")
    assert capsys.readouterr().err == "ValueError: why\nplait: a sentence\n"
