"""CSV and its relatives, record by record: dialect detected, and a broken record costs its own line only.

A stray quote is the danger of the format: a lenient reader takes everything up to the next quote, which may be
hundreds of rows on, for one field, and nobody is told. Here quotes are read strictly; a record whose quotes do not
close as they should is bad on the line where it starts, and reading goes on at the next line.
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from thriftune.collect.readers.encoding import TextFacts, broken_part, examine, open_text
from thriftune.collect.readers.rows import BATCH_ROWS, BadRow, BadRows, Batch, missing_column, shorten
from thriftune.errors import BadInput

DELIMITERS = (",", "\t", ";", "|")
SAMPLE_LINES = 500
SAMPLE_CHARACTERS = 1 << 20
MOST_RECORD_LINES = 10_000  # a record of more lines is taken for a quote that was never closed
_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


@dataclass(frozen=True)
class Dialect:
    """How fields are set apart, as the standard library's csv module names it."""

    delimiter: str = ","
    quotechar: str = '"'
    escapechar: str | None = None
    quoted: bool = True
    skip_space: bool = False

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """A strict reader of records."""
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(
            lines,
            strict=True,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            escapechar=self.escapechar,
            doublequote=self.escapechar is None,
            quoting=quoting,
            skipinitialspace=self.skip_space,
        )


@dataclass(frozen=True)
class DelimitedReader:
    """A delimited file, opened and understood."""

    path: Path
    file: str
    facts: TextFacts
    dialect: Dialect
    columns: list[str]

    @classmethod
    def open(
        cls, path: Path, file: str, encoding: str | None, delimiter: str | None, expected: Sequence[str] = ()
    ) -> DelimitedReader:
        """Detect encoding and dialect.

        Args:
            path: the file.
            file: its name for messages.
            encoding: as the user states it, or None to detect it.
            delimiter: as the user states it, or None to detect it.
            expected: columns that the header should have; they help to tell dialects apart.

        Raises:
            BadInput: there is no header to read.
        """
        facts = examine(path, file, encoding)
        with open_text(path, facts) as stream:
            sample = list(_sample(stream))
        likeliest = "\t" if path.suffix.lower() == ".tsv" else ","
        tried = (delimiter,) if delimiter else sorted(DELIMITERS, key=lambda each: each != likeliest)
        dialect = detect(sample, tried, expected)
        header = next((record.fields for record in records(sample, dialect) if record.fields != []), None)
        if header is None:
            raise BadInput(
                what="the header cannot be read",
                where=f"{file}, row 1",
                found=shorten(sample[0]) if sample else "nothing",
                expected="the columns' names in the first row",
                way_out="add a first row with the columns' names",
            )
        return cls(path, file, facts, dialect, [name.strip() for name in header])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected beyond the usual."""
        notes = list(self.facts.notes)
        if self.dialect.delimiter != ",":
            notes.append(f"fields are set apart by a {_NAMES[self.dialect.delimiter]}")
        if self.dialect.escapechar:
            notes.append("quotes inside fields are escaped by a backslash")
        if not self.dialect.quoted:
            notes.append("quotes are ordinary characters")
        return tuple(notes)

    @property
    def most_rows(self) -> int:
        """Lines, which are at least as many as rows."""
        return self.facts.lines

    def batches(self, wanted: Sequence[str], bad: BadRows) -> Iterator[Batch]:
        """The wanted columns, batch by batch; see `Reader`."""
        places = [self._place(name) for name in wanted]
        with open_text(self.path, self.facts) as stream:
            good = self._good(stream, bad)
            while block := list(itertools.islice(good, BATCH_ROWS)):
                cells = {
                    name: [fields[place] for _, fields in block] for name, place in zip(wanted, places, strict=True)
                }
                yield Batch([line for line, _ in block], cells)

    def _place(self, name: str) -> int:
        found = [place for place, column in enumerate(self.columns) if column == name]
        if not found:
            raise missing_column(self.file, name, self.columns)
        if len(found) > 1:
            raise BadInput(
                what=f"the column {name!r} is there {len(found)} times",
                where=f"{self.file}, row 1",
                found=f"columns {', '.join(self.columns)}",
                expected="different names",
                way_out="rename one of them in the first row",
            )
        return found[0]

    def _good(self, stream: Iterable[str], bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """(line, fields) of every readable record after the header."""
        body = itertools.dropwhile(lambda record: record.fields == [], records(stream, self.dialect))
        next(body)  # the header
        width = len(self.columns)
        for record in body:
            fields = record.fields
            if fields is None:
                bad.add(BadRow(record.line, "quotes", record.trouble, "quotes that open and close a whole field"))
            elif not fields:
                bad.blank += 1
            elif len(fields) != width:
                found = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
                bad.add(BadRow(record.line, "wrong number of fields", found, f"{width} fields, as in the header"))
            elif self.facts.needs_care and (broken := _broken(fields)):
                reason, found = broken
                bad.add(BadRow(record.line, reason, found, f"text in {self.facts.encoding} without NUL bytes"))
            else:
                yield record.line, fields


@dataclass(frozen=True, slots=True)
class Record:
    """A record's first line (1-based) and its fields; None where its quotes are broken, empty for a blank line."""

    line: int
    fields: list[str] | None
    trouble: str = ""


def records(lines: Iterable[str], dialect: Dialect) -> Iterator[Record]:
    """Every record of some lines, in order; a broken one is its first line only."""
    csv.field_size_limit(sys.maxsize)
    tape = _Tape(lines)
    reader = dialect.reader(tape)
    while True:
        tape.start_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            trouble = shorten(tape.rewind())
            reader = dialect.reader(tape)
            yield Record(tape.line, None, trouble)
        else:
            yield Record(tape.line, fields)


class _Tape:
    """Lines that can be given back: all of a record but its first."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self._record: list[str] = []
        self.line = 0  # of the record that is being read
        self._read = 0  # lines handed out so far

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._record) >= MOST_RECORD_LINES:
            raise csv.Error("unclosed quote")
        line = self._returned.popleft() if self._returned else next(self._lines)
        self._record.append(line)
        self._read += 1
        return line

    def start_record(self) -> None:
        self._record.clear()
        self.line = self._read + 1

    def rewind(self) -> str:
        """Give back all lines after the record's first, which is returned."""
        first, *rest = self._record
        self._returned.extendleft(reversed(rest))
        self._read -= len(rest)
        return first


def detect(sample: Sequence[str], delimiters: Sequence[str], expected: Sequence[str] = ()) -> Dialect:
    """The dialect under which most records of a sample are as wide as the header, which has several columns.

    Args:
        sample: the file's first lines.
        delimiters: those to try, the likeliest first.
        expected: columns that should be in the header.
    """
    text = "".join(sample)
    plain = [Dialect(delimiter) for delimiter in delimiters]
    candidates = list(plain)
    if '\\"' in text:
        candidates += [replace(dialect, escapechar="\\") for dialect in plain]
    if '"' in text:
        candidates += [replace(d, skip_space=True) for d in plain if f'{d.delimiter} "' in text]
        candidates += [replace(dialect, quoted=False) for dialect in plain]
    elif text.startswith("'"):
        candidates = [replace(dialect, quotechar="'") for dialect in plain] + candidates
    return max(candidates, key=lambda dialect: _fit(sample, dialect, expected))  # of equals, the first


def _fit(sample: Sequence[str], dialect: Dialect, expected: Sequence[str]) -> tuple[bool, bool, float]:
    """(has the expected columns, has several, share of records that fit the header): the larger, the better."""
    found = [record.fields for record in records(sample, dialect) if record.fields != []]
    header = found[0] if found else None
    if header is None:
        return False, False, 0.0
    fitting = sum(
        fields is not None and len(fields) == len(header) and not any(_shows_quotes(field, dialect) for field in fields)
        for fields in found
    )
    share = fitting / len(found)
    return {name.strip() for name in header}.issuperset(expected), len(header) > 1, share


def _shows_quotes(field: str, dialect: Dialect) -> bool:
    """Whether quotes around the whole field are left in it, so that another dialect would have taken them off."""
    bare = field if dialect.skip_space or not dialect.quoted else field.lstrip(" ")
    taken = dialect.quoted and bare == field
    return not taken and len(bare) > 1 and bare[0] == bare[-1] == '"'


def _sample(stream: Iterable[str]) -> Iterator[str]:
    """The first lines, the last of them whole."""
    size = 0
    for line in itertools.islice(stream, SAMPLE_LINES):
        yield line
        size += len(line)
        if size > SAMPLE_CHARACTERS:
            return


def _broken(fields: Sequence[str]) -> tuple[str, str] | None:
    return next((broken for field in fields if (broken := broken_part(field))), None)
