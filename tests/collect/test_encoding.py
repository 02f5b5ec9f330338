"""In which encoding a file is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from thriftune.collect.readers.encoding import examine, open_text
from thriftune.errors import BadInput

GERMAN = "Das Café „Größe“ schließt für übermorgen; naïve Gäste zahlen 5 €.\n"
FRENCH = "Où est-il passé ? Ça m'a déplu, à vrai dire, même l'été.\n"
RUSSIAN = "Это очень хороший фильм, который мне действительно понравился, всем советую посмотреть.\n"


def detected(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return examine(path, path.name).encoding


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"plain\n", "utf-8"),
        (GERMAN.encode(), "utf-8"),
        (GERMAN.encode("utf-8-sig"), "utf-8-sig"),
        (GERMAN.encode("utf-16"), "utf-16"),
        (GERMAN.encode("utf-16-le"), "utf-16-le"),
        (GERMAN.encode("utf-16-be"), "utf-16-be"),
        (GERMAN.encode("utf-32"), "utf-32"),
        (GERMAN.encode("cp1252"), "cp1252"),
        (FRENCH.encode("latin-1"), "cp1252"),
        (b"one caf\xe9\n", "cp1252"),
        (b"binary \xff\xfe\xfa\n", "utf-8"),
        (b"cut off \xc3 here\n", "utf-8"),
    ],
)
def test_an_encoding_is_told_by_mark_validity_or_plausibility(tmp_path: Path, data: bytes, encoding: str) -> None:
    assert detected(tmp_path / "rows.txt", data) == encoding


def test_another_alphabet_is_recognised_where_there_is_enough_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes((RUSSIAN * 5).encode("cp1251"))
    with open_text(path, examine(path, path.name)) as stream:
        assert stream.read() == RUSSIAN * 5


def test_utf8_with_a_few_broken_lines_stays_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes((GERMAN * 5).encode() + b"caf\xe9\n")
    facts = examine(path, path.name)
    assert (facts.encoding, facts.has_undecodable) == ("utf-8", True)


def test_a_stated_encoding_is_taken_at_its_word(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(GERMAN.encode())
    facts = examine(path, path.name, "latin-1")
    with open_text(path, facts) as stream:
        assert stream.read() == GERMAN.encode().decode("latin-1")


def test_an_unknown_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(b"text")
    with pytest.raises(BadInput) as caught:
        examine(path, path.name, "utf-9")
    assert (caught.value.where, caught.value.found) == ("rows.txt", "utf-9")


def test_a_utf16_file_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(GERMAN.encode("utf-16")[:-1])
    with pytest.raises(BadInput, match="damaged"):
        examine(path, path.name)


def test_a_nul_is_seen_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    for data in (b"a\0b", "a\0b\n".encode("utf-16")):
        path.write_bytes(data)
        assert examine(path, path.name).has_nul
