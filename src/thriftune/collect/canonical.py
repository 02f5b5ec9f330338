"""Source rows of any shape in the one form that every later stage reads."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import polars as pl

from thriftune.collect.options import Shape, Source
from thriftune.collect.readers import BadRow, BadRows, Batch, shorten
from thriftune.collect.turns import Turns, from_python
from thriftune.tasks.kinds import KINDS
from thriftune.tasks.targets import write_labels, write_tags

ROLES = ("system", "user", "assistant")
ID_BYTES = 8
ANSWERS = ("target", "rejected")
NO_VALUE = {
    "text": "no text",
    "label": "no label",
    "tokens": "no words",
    "tags": "no tags",
    "prompt": "no prompt",
    "answer": "no answer",
    "chosen": "no chosen answer",
    "rejected": "no rejected answer",
    "preference": "chosen and rejected are the same",
}
LABELS_APART = ";"  # between the labels of a cell that is text, and no JSON list
Words = list[str]


class Row(NamedTuple):
    """A usable row: its number in the source, what is asked, what is to be answered, and its optional columns.

    `target` is empty where nothing is asked (a document); `rejected` is the worse answer of a preference.
    """

    row: int
    content: str | Words | Turns
    target: str
    rejected: str | None
    group: str | None
    name: str | None


@dataclass
class Canonical:
    """Turns a source's batches into frames of the corpus, and counts what it cannot use.

    A row without a label, text, prompt or answer is dropped by that reason; a row whose cells are not what the shape
    needs is a bad row. State is kept over batches, so that equal rows get different ids.

    Args:
        source: the file and its columns.
        bad: where unreadable rows are counted.
    """

    source: Source
    bad: BadRows
    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    _occurrences: Counter[bytes] = field(default_factory=Counter)

    def frame(self, batch: Batch) -> pl.DataFrame:
        """The batch's usable rows with the corpus's columns."""
        rows, ids = [], []
        for row in self._usable(batch):
            try:
                ids.append(self._id(row))
            except UnicodeEncodeError:
                self.bad.add(BadRow(row.row, "half a character", "half of a surrogate pair", "whole characters"))
            else:
                rows.append(row)
        self.kept += len(rows)
        kind = KINDS[self.source.task]
        content = _SERIES[kind.content]([row.content for row in rows])
        worse = [pl.Series("rejected", [row.rejected for row in rows], pl.String)] * (kind.asked == "preferences")
        return pl.DataFrame(
            [
                pl.Series("id", ids, pl.String),
                pl.Series("source", [self.source.file] * len(rows), pl.String),
                pl.Series("row", [row.row for row in rows], pl.Int64),
                pl.Series("licence", [self.source.licence] * len(rows), pl.String),
                pl.Series("part", [self.source.part] * len(rows), pl.String),
                pl.Series("group", [row.group for row in rows], pl.String),
                content,
                pl.Series("target", [row.target for row in rows], pl.String),
                *worse,
            ]
        )

    def _usable(self, batch: Batch) -> Iterator[Row]:
        read = _READ[self.source.shape]
        names = list(self.source.columns)
        columns = [batch.cells[column] for column in self.source.columns.values()]
        for number, cells in zip(batch.rows, zip(*columns, strict=True), strict=True):
            try:
                cell = dict(zip(names, cells, strict=True))
                content, target, *worse = read(cell)
                rejected = worse[0] if worse else None
                yield Row(number, content, target, rejected, _value(cell.get("group")), _value(cell.get("id")))
            except _NoValue as missing:
                self.dropped[missing.reason] += 1
            except _Unfit as unfit:
                self.bad.add(BadRow(number, unfit.reason, unfit.found, unfit.expected))

    def _id(self, row: Row) -> str:
        """Hash of source and content (or the row's own name); of equal rows the later ones are numbered."""
        parts = ["row", *_pieces(row.content), row.target] if row.name is None else ["id", row.name]
        if row.name is None and row.rejected is not None:
            parts.append(row.rejected)
        if row.group is not None:
            row.group.encode()
        content = "\x1f".join((self.source.file, *parts)).encode()
        digest = blake2b(content, digest_size=ID_BYTES).digest()
        occurrence = self._occurrences[digest]
        self._occurrences[digest] += 1
        if occurrence:
            digest = blake2b(digest + str(occurrence).encode(), digest_size=ID_BYTES).digest()
        return digest.hex()


class _NoValue(Exception):
    """A row lacks something; it is dropped by that reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Unfit(Exception):
    """A cell is not what its column should hold; the row is bad."""

    def __init__(self, reason: str, found: str, expected: str) -> None:
        self.reason, self.found, self.expected = reason, found, expected


def as_text(cell: Any) -> str | None:
    """A cell as text, None where it has none; whole numbers lose the `.0` that a column with gaps gives them.

    Raises:
        _Unfit: the cell is a list, an object or bytes.
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        if math.isnan(cell):
            return None
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, list | dict | tuple | bytes | pl.Series):
        raise _Unfit("not text", f"{type(cell).__name__} {shorten(cell)}", "text or a number")
    return str(cell)  # int, Decimal, date, time


def _value(cell: Any) -> str | None:
    """A cell as text without blanks around it, None where nothing is left."""
    text = as_text(cell)
    return (text.strip() or None) if text is not None else None


def _required(cell: Any, reason: str) -> str:
    text = as_text(cell)
    if not text or text.isspace():
        raise _NoValue(reason)
    return text


def _read_text(cell: Mapping[str, Any]) -> tuple[str, str]:
    label = _required(cell["label"], NO_VALUE["label"]).strip()
    return _required(cell["text"], NO_VALUE["text"]), label


def _read_labels(cell: Mapping[str, Any]) -> tuple[str, str]:
    value = cell["labels"]
    if value is None:
        raise _NoValue(NO_VALUE["label"])
    if isinstance(value, str) and not value.lstrip().startswith("["):
        labels = value.split(LABELS_APART)
    else:
        labels = _texts(value, "labels")
    stripped = (label.strip() for label in labels)
    return _required(cell["text"], NO_VALUE["text"]), write_labels(label for label in stripped if label)


def _read_tokens(cell: Mapping[str, Any]) -> tuple[Words, str]:
    if cell["tokens"] in (None, "", []):
        raise _NoValue(NO_VALUE["tokens"])
    if cell["tags"] in (None, "", []):
        raise _NoValue(NO_VALUE["tags"])
    words, tags = _texts(cell["tokens"], "words"), [tag.strip() for tag in _texts(cell["tags"], "tags")]
    if len(words) != len(tags):
        raise _Unfit("unequal lengths", f"{len(words)} words and {len(tags)} tags", "a tag for each word")
    if not all(tags):
        raise _Unfit("blank tag", f"no tag for the word {shorten(words[tags.index('')])}", "a tag for each word")
    if not any(word.strip() for word in words):
        raise _NoValue(NO_VALUE["tokens"])
    return words, write_tags(tags)


def _texts(value: Any, of: str) -> list[str]:
    """The texts of a list, or of the JSON list that a text is."""
    expected = f"a list of {of}"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Unfit("not a list", f"{shorten(value)} ({error})", expected) from None
    if not isinstance(value, list):
        raise _Unfit("not a list", shorten(value), expected)
    texts = [as_text(item) for item in value]
    if None in texts:
        raise _Unfit("a gap in a list", shorten(value), expected + " without gaps")
    return cast(list[str], texts)


def _read_pair(cell: Mapping[str, Any]) -> tuple[Turns, str]:
    prompt = _required(cell["prompt"], NO_VALUE["prompt"])
    return [{"role": "user", "content": prompt}], _required(cell["completion"], NO_VALUE["answer"])


def _read_instruction(cell: Mapping[str, Any]) -> tuple[Turns, str]:
    """Alpaca's form: what the instruction works on follows it after an empty line."""
    parts = [_value(cell["instruction"]), _value(cell.get("input"))]
    prompt = _required("\n\n".join(part for part in parts if part), NO_VALUE["prompt"])
    return [{"role": "user", "content": prompt}], _required(cell["output"], NO_VALUE["answer"])


def _read_document(cell: Mapping[str, Any]) -> tuple[str, str]:
    return _required(cell["text"], NO_VALUE["text"]), ""


def _read_preference(cell: Mapping[str, Any]) -> tuple[Turns, str, str]:
    """A prompt with two answers, each a text, or a conversation that ends with one and begins with nothing else."""
    prompt: Turns
    if isinstance(cell["prompt"], list):
        prompt = _turns(cell["prompt"])
        if not any(turn["role"] == "user" for turn in prompt):
            raise _NoValue(NO_VALUE["prompt"])
    else:
        prompt = [{"role": "user", "content": _required(cell["prompt"], NO_VALUE["prompt"])}]
    chosen, rejected = (_answer(cell[name], prompt, NO_VALUE[name]) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise _NoValue(NO_VALUE["preference"])
    return prompt, chosen, rejected


def _answer(value: Any, prompt: Turns, reason: str) -> str:
    if not isinstance(value, list):
        return _required(value, reason)
    *before, answer = _turns(value)
    if answer["role"] != "assistant" or before not in ([], prompt):
        raise _Unfit("not an answer to the prompt", shorten(value), "the assistant's turn, after the prompt's or alone")
    return _required(answer["content"], reason)


def _read_messages(cell: Mapping[str, Any]) -> tuple[Turns, str]:
    value = cell["messages"]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Unfit("not a conversation", f"{shorten(value)} ({error})", _CONVERSATION) from None
    turns = _turns(value)
    if turns[-1]["role"] != "assistant":
        raise _Unfit("no final answer", f"a last message by the {turns[-1]['role']}", "a last message by the assistant")
    *before, answer = turns
    if not any(turn["role"] == "user" for turn in before):
        raise _NoValue(NO_VALUE["prompt"])
    return before, _required(answer["content"], NO_VALUE["answer"])


_CONVERSATION = 'a list such as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def _turns(value: Any) -> Turns:
    if value is None or value == []:
        raise _NoValue(NO_VALUE["prompt"])
    if not isinstance(value, list):
        raise _Unfit("not a conversation", shorten(value), _CONVERSATION)
    return [_turn(message) for message in value]


def _turn(message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise _Unfit("not a conversation", shorten(message), _CONVERSATION)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _Unfit("unknown role", f"role {shorten(role)}", f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise _Unfit("message without text", f"content {shorten(content)}", "content that is text")
    return {"role": role, "content": content}


_READ: dict[Shape, Callable[[Mapping[str, Any]], tuple[str | Words | Turns, str] | tuple[Turns, str, str]]] = {
    "text": _read_text,
    "labels": _read_labels,
    "tokens": _read_tokens,
    "pair": _read_pair,
    "instruction": _read_instruction,
    "messages": _read_messages,
    "preference": _read_preference,
    "document": _read_document,
}


_SERIES: dict[str, Callable[[list[Any]], pl.Series]] = {
    "text": lambda texts: pl.Series("text", texts, pl.String),
    "tokens": lambda sentences: pl.Series("tokens", sentences, pl.List(pl.String)),
    "messages": from_python,
}


def _pieces(content: str | Words | Turns) -> list[str]:
    """All texts of a row's content, in order."""
    if isinstance(content, str):
        return [content]
    return [piece for part in content for piece in ([part] if isinstance(part, str) else part.values())]


def concatenate(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Frames of one task below each other, in one block of memory."""
    return pl.concat(frames, rechunk=True)


def characters(frame: pl.DataFrame) -> int:
    """How many characters a frame's rows have, as `lengths` counts them."""
    return int(lengths(frame).sum())


def lengths(frame: pl.DataFrame) -> pl.Series:
    """Characters of each row: its text, all its words or all its turns, and for a conversation its answers too."""
    if "text" in frame.columns:
        return frame["text"].str.len_chars().cast(pl.Int64)
    if "tokens" in frame.columns:
        return frame.select(pl.col("tokens").list.eval(pl.element().str.len_chars()).list.sum().cast(pl.Int64))[
            "tokens"
        ]
    turns = frame.select(
        pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum().cast(pl.Int64)
    )
    answers = [frame[name].str.len_chars().cast(pl.Int64) for name in answer_columns(frame)]
    return sum(answers, start=turns["messages"])


def answer_columns(frame: pl.DataFrame) -> list[str]:
    """The names of the frame's columns of answers: `target`, and for preferences `rejected`."""
    return [name for name in ANSWERS if name in frame.columns]
