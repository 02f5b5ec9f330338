"""CSV and its relatives: every dialect is read exactly, and every broken row is counted with its line."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.collect.readers import BadRows, open_source
from thriftune.collect.readers.delimited import Dialect, detect, records
from thriftune.errors import BadInput

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def pairs(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["text"], row["target"]) for row in rows]


@given(
    rows=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    style=st.sampled_from([("\n", csv.QUOTE_ALL), ("\r\n", csv.QUOTE_MINIMAL)]),  # the writer quotes what it must
)
def test_what_a_writer_wrote_is_read_back_to_the_character(
    rows: list[tuple[str, str]], delimiter: str, encoding: str, style: tuple[str, int]
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator=style[0], quoting=style[1])
    writer.writerows([("text", "label"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(written.getvalue().encode(encoding))
        reader = open_source(path, "rows.csv", delimiter=delimiter, expected=["text", "label"])
        bad = BadRows("rows.csv", 0.0, reader.most_rows)
        batches = list(reader.batches(["text", "label"], bad))
    assert [row for batch in batches for row in zip(batch.cells["text"], batch.cells["label"], strict=True)] == rows
    assert bad.total == 0


@pytest.mark.parametrize(
    ("content", "dialect"),
    [
        ("text,label\na b,x\n", Dialect(",")),
        ("text;label\na, b;x\n", Dialect(";")),
        ("text\tlabel\na, b; c\tx\n", Dialect("\t")),
        ("text|label\na, b|x\n", Dialect("|")),
        ('text, label\n"a, b", x\nc, "y"\n', Dialect(",", skip_space=True)),
        ('text,label\n"a \\"b\\", c",x\n"d",y\n', Dialect(",", escapechar="\\")),
        ('text\tlabel\n"quoted at the start only\tx\nfive" tall\ty\n', Dialect("\t", quoted=False)),
        ("'text','label'\n'a, b','x'\n", Dialect(",", quotechar="'")),
        ("text\nalone\n", Dialect(",")),
    ],
)
def test_a_dialect_is_told_from_its_first_lines(content: str, dialect: Dialect) -> None:
    found = detect(content.splitlines(keepends=True), [",", "\t", ";", "|"])
    assert found == dialect


def test_the_expected_columns_decide_between_dialects(read) -> None:
    rows, _ = read("odd.csv", "my text;a|label\none;b|x\ntwo;c|y\n", text="my text", label="a|label")
    assert pairs(rows) == [("one", "b|x"), ("two", "c|y")]


def test_a_broken_row_is_counted_with_its_line_and_its_neighbours_are_kept(read) -> None:
    lines = [f'"text, {n}",{"ab"[n % 2]}' for n in range(20)]
    lines[3] = "too,many,fields"
    lines[7] = "too few"
    lines[11] = '"a quote that does not close, x'
    lines[15] = '"closed"too early,x'
    rows, collected = read("rows.csv", "text,label\n" + "\n".join(lines) + "\n", limit=0.5)
    assert [row["row"] for row in rows] == [n + 2 for n in range(20) if n not in (3, 7, 11, 15)]
    assert collected.dropped == {"wrong number of fields": 2, "quotes": 2}
    assert [(bad.row, bad.reason) for bad in collected.bad_rows] == [
        (5, "wrong number of fields"),
        (9, "wrong number of fields"),
        (13, "quotes"),
        (17, "quotes"),
    ]
    assert collected.rows_in == 20 == collected.kept + sum(collected.dropped.values())


def test_a_row_over_several_lines_is_known_by_its_first(read) -> None:
    rows, collected = read("rows.csv", 'text,label\n"one\ntwo\r\nthree",x\n\nfour,y\n')
    assert pairs(rows) == [("one\ntwo\r\nthree", "x"), ("four", "y")]
    assert [row["row"] for row in rows] == [2, 6]
    assert collected.notes == ("1 blank lines skipped",)


def test_a_stray_quote_does_not_swallow_the_rows_after_it() -> None:
    lines = ["text,label\n", '"stray, a\n', *[f"row {n}, b\n" for n in range(15_000)]]
    found = list(records(lines, Dialect(",")))
    assert [record.line for record in found if record.fields is None] == [2]
    assert len(found) == len(lines)


def test_more_than_one_bad_row_in_a_hundred_stops(read) -> None:
    good = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(199))
    read("fits.csv", "text,label\n" + good + "1,2,3\n")
    with pytest.raises(BadInput) as caught:
        read("fails.csv", "text,label\n" + good + "1,2,3\n" * 3)
    error = caught.value
    assert "3 of 202 rows cannot be read (3 × wrong number of fields); the limit is 1.0%" in error.what
    assert error.where == "fails.csv, row 201"
    assert error.found == "3 fields"
    assert error.expected == "2 fields, as in the header"
    assert "rows 201, 202, 203" in error.way_out


def test_a_nul_byte_makes_a_bad_row(read) -> None:
    with pytest.raises(BadInput) as caught:
        read("rows.csv", b"text,label\ngood,a\nb\0ad,b\n")
    assert caught.value.where == "rows.csv, row 3"
    assert "NUL" in caught.value.found


def test_bytes_that_are_no_utf8_make_a_bad_row(read) -> None:
    content = "text,label\n" + "".join(f"caf\u00e9 {n},{'ab'[n % 2]}\n" for n in range(150))
    rows, collected = read("rows.csv", content.encode() + b"br\xc3oken,a\n")
    assert len(rows) == 150
    assert [(bad.row, bad.reason, bad.found) for bad in collected.bad_rows] == [(152, "invalid encoding", "byte 0xc3")]


def test_a_row_of_ten_megabytes_is_a_row(read) -> None:
    rows, _ = read("rows.csv", "text,label\n" + "word " * 2_000_000 + ",a\nshort,b\n")
    assert [len(row["text"]) for row in rows] == [10_000_000, 5]


def test_a_column_that_is_there_twice_is_an_error(read) -> None:
    with pytest.raises(BadInput, match="2 times"):
        read("rows.csv", "text,label,text\na,b,c\n")


def test_a_missing_column_names_the_nearest(read) -> None:
    with pytest.raises(BadInput) as caught:
        read("rows.csv", "texts,label,other\na,b,c\n")
    assert caught.value.where == "rows.csv"
    assert caught.value.found == "columns texts, label, other"
    assert "'texts', the nearest" in caught.value.way_out


def test_numbers_become_their_text(read) -> None:
    rows, _ = read("rows.csv", "review,stars\ngood,5\nbad,1\n", text="review", label="stars")
    assert pairs(rows) == [("good", "5"), ("bad", "1")]
