"""JSON Lines and JSON arrays of objects."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftune.collect.readers.encoding import TextFacts, broken_part, examine, open_text
from thriftune.collect.readers.rows import BATCH_ROWS, BadRow, BadRows, Batch, missing_column, shorten
from thriftune.errors import BadInput

SAMPLE_RECORDS = 1000
_OBJECT = "one JSON object a line"


@dataclass(frozen=True)
class JsonLinesReader:
    """A file with one JSON object a line."""

    path: Path
    file: str
    facts: TextFacts
    columns: list[str]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected beyond the usual."""
        return self.facts.notes

    @property
    def most_rows(self) -> int:
        """Lines, which are at least as many as rows."""
        return self.facts.lines

    def batches(self, wanted: Sequence[str], bad: BadRows) -> Iterator[Batch]:
        """The wanted columns, batch by batch; see `Reader`. A key that a record lacks is None."""
        with open_text(self.path, self.facts) as stream:
            yield from _in_batches(_objects(stream, self.facts, bad), wanted, self.file, self.columns)


@dataclass(frozen=True)
class JsonArrayReader:
    """A file that is one JSON array of objects; a row is an element, counted from 1."""

    file: str
    elements: list[Any]
    columns: list[str]
    notes: tuple[str, ...]

    @property
    def most_rows(self) -> int:
        """The number of elements."""
        return len(self.elements)

    def batches(self, wanted: Sequence[str], bad: BadRows) -> Iterator[Batch]:
        """The wanted columns, batch by batch; see `Reader`. A key that an element lacks is None."""
        yield from _in_batches(self._objects(bad), wanted, self.file, self.columns)

    def _objects(self, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for row, element in enumerate(self.elements, start=1):
            if isinstance(element, dict):
                yield row, element
            else:
                bad.add(BadRow(row, "not an object", shorten(element), "an array of JSON objects"))


def open_json(path: Path, file: str, encoding: str | None) -> JsonLinesReader | JsonArrayReader:
    """Open a file of JSON objects: an array if it starts with a bracket, otherwise one object a line.

    Raises:
        BadInput: the array cannot be read.
    """
    facts = examine(path, file, encoding)
    with open_text(path, facts) as stream:
        start = next((line.lstrip()[0] for line in stream if line.strip()), "")
    if start == "[":
        elements = _array(path, file, facts)
        return JsonArrayReader(file, elements, _keys(e for e in elements if isinstance(e, dict)), facts.notes)
    with open_text(path, facts) as stream:
        whatever = BadRows(file, limit=1.0, most_rows=facts.lines)
        columns = _keys(record for _, record in _objects(stream, facts, whatever))
    return JsonLinesReader(path, file, facts, columns)


def _array(path: Path, file: str, facts: TextFacts) -> list[Any]:
    with open_text(path, facts) as stream:
        text = stream.read()
    broken = broken_part(text) if facts.needs_care else None
    try:
        if broken:
            raise ValueError(f"it holds {broken[1]}")
        elements: list[Any] = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            what="the JSON array cannot be read",
            where=file,
            found=str(error),
            expected="one array of objects, or one JSON object a line",
            way_out="mend the file, or write it as JSON Lines, where a broken row costs only itself",
        ) from None
    return elements


def _objects(lines: Iterator[str] | Any, facts: TextFacts, bad: BadRows) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, object) of every readable line."""
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            bad.blank += 1
            continue
        if facts.needs_care and (broken := broken_part(line)):
            bad.add(BadRow(row, broken[0], broken[1], f"text in {facts.encoding} without NUL bytes"))
            continue
        try:
            record = json.loads(line, parse_constant=lambda _: None)
        except ValueError as error:
            bad.add(BadRow(row, "not JSON", f"{shorten(line)} ({error})", _OBJECT))
        except RecursionError:
            bad.add(BadRow(row, "not JSON", "brackets nested too deep to read", _OBJECT))
        else:
            if isinstance(record, dict):
                yield row, record
            else:
                bad.add(BadRow(row, "not an object", shorten(record), _OBJECT))


def _keys(records: Iterator[Mapping[str, Any]] | Any) -> list[str]:
    """The keys of the first records, in the order in which they turn up."""
    return list(dict.fromkeys(key for record in itertools.islice(records, SAMPLE_RECORDS) for key in record))


def _in_batches(
    objects: Iterator[tuple[int, Mapping[str, Any]]], wanted: Sequence[str], file: str, columns: Sequence[str]
) -> Iterator[Batch]:
    unseen = set(wanted)
    while block := list(itertools.islice(objects, BATCH_ROWS)):
        if unseen:
            unseen -= {name for name in unseen if any(name in record for _, record in block)}
        yield Batch([row for row, _ in block], {name: [record.get(name) for _, record in block] for name in wanted})
    if unseen:
        raise missing_column(file, min(unseen, key=list(wanted).index), columns)
