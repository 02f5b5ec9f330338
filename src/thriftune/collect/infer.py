"""What a file is for: its task and columns, inferred from names and from what the columns hold.

Names are tried before content, and content decides only where it is clear; otherwise the user is asked by a message
that names the candidates and the option to give. Nothing here is used by a run: `thriftune init` writes what was
inferred into the project file, where it can be read and changed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from thriftune.collect.listed import Listed, listed
from thriftune.collect.options import SHAPES, TASK_OF_SHAPE
from thriftune.collect.readers import BadRows, Reader, open_source
from thriftune.collect.readers.rows import missing_column
from thriftune.errors import BadInput
from thriftune.tasks.kinds import TaskName

SAMPLE_ROWS = 5000
MOST_CLASSES = 200
LONGEST_LABEL = 50  # characters on average; what is longer is text, not a category
ROWS_PER_CLASS = 3.0  # below that a column's values hardly repeat: it names things, it does not sort them
ROWS_PER_HINTED_CLASS = 2.0  # a column that is called `label` is believed sooner
DISTINCT_SHARE_OF_TEXT = 0.5
FEW_PER_CLASS = 10
SHORTEST_DOCUMENT = 20.0  # characters on average; raw text is at least sentences

LABEL_HINTS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "stars", "rating",
               "score", "tag", "type", "polarity", "emotion", "y")  # fmt: skip
PROMPT_HINTS = ("prompt", "question", "instruction", "query", "input", "request", "user", "human", "source", "q")
COMPLETION_HINTS = ("completion", "answer", "response", "output", "reply", "assistant", "bot", "target", "a")
GROUP_HINTS = ("group", "group_id", "user_id", "userid", "author", "author_id", "customer_id", "thread", "thread_id",
               "conversation_id", "session_id", "ticket_id")  # fmt: skip
_WORD = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Inference:
    """What a file seems to be for.

    Args:
        task: its name.
        columns: fields of a `Source` → names of the file's columns.
        reasons: why, and what else came into question, a sentence each.
        warnings: what the user should look at before spending money, a sentence each.
    """

    task: TaskName
    columns: Mapping[str, str]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """What a sample of a column shows.

    Args:
        name: the column's name.
        filled: cells with a value.
        distinct: different values among them.
        length: characters of a value, on average.
        kind: `conversation` (lists of messages), `text` (words), or `value` (numbers, keys, dates).
        rarest: rows of the rarest value.
        lists: what its cells show as lists of short texts, where they are.
    """

    name: str
    filled: int
    distinct: int
    length: float
    kind: Literal["conversation", "text", "value"]
    rarest: int
    lists: Listed | None = None

    @property
    def rows_per_value(self) -> float:
        """How often a value repeats, on average."""
        return self.filled / max(1, self.distinct)

    @property
    def is_text(self) -> bool:
        """Words that mostly differ from row to row."""
        return self.lists is None and self.kind == "text" and self.distinct >= DISTINCT_SHARE_OF_TEXT * self.filled

    @property
    def is_label(self) -> bool:
        """A few short values that repeat."""
        enough = ROWS_PER_HINTED_CLASS if rank(self.name, LABEL_HINTS) is not None else ROWS_PER_CLASS
        few = 2 <= self.distinct <= MOST_CLASSES and self.rows_per_value >= enough
        return few and self.lists is None and self.kind != "conversation" and self.length <= LONGEST_LABEL


def infer(path: Path, text: str | None = None, label: str | None = None) -> Inference:
    """Infer task and columns from a file's first rows.

    Args:
        path: a CSV, TSV, JSON Lines, JSON or Parquet file.
        text: the column of texts (or prompts), if the user names it.
        label: the column of labels (or answers), if the user names it.

    Raises:
        BadInput: the file cannot be read, lacks a named column, or does not show what it is for; then the message
            names the candidates and the option to give.
    """
    named = [name for name in (text, label) if name is not None]
    reader = open_source(path, path.name, expected=named)
    columns = _sample(reader, path.name, named)
    by_name = {column.name: column for column in columns}
    if text is not None and label is not None:
        found = _from_options(by_name[text], by_name[label])
    else:
        found = (
            _from_names(by_name, named)
            or _from_lists(columns, path.name, text, label)
            or _from_content(columns, path.name, text, label)
        )
    return _with_group(found, columns, reader.notes)


def _sample(reader: Reader, file: str, named: Sequence[str]) -> list[Column]:
    whatever = BadRows(file, limit=1.0, most_rows=reader.most_rows)
    for name in named:
        if name not in reader.columns:
            raise missing_column(file, name, reader.columns)
    names = list(dict.fromkeys(reader.columns))
    batch = next(iter(reader.batches(names, whatever)), None)
    if batch is None or not batch.rows:
        raise BadInput("there are no rows", file, "a header at most", "rows of data", "export it again")
    return [describe(name, batch.cells[name][:SAMPLE_ROWS]) for name in names]


def describe(name: str, cells: Sequence[Any]) -> Column:
    """What a column's cells show."""
    values = [cell for cell in cells if cell is not None and cell not in ("", [])]
    if values and all(_is_conversation(value) for value in values[:100]):
        return Column(name, len(values), len(values), 0.0, "conversation", 1)
    texts = [value if isinstance(value, str) else str(value) for value in values]
    counts = Counter(texts)
    return Column(
        name,
        filled=len(texts),
        distinct=len(counts),
        length=fmean(map(len, texts)) if texts else 0.0,
        kind="text" if _reads_as_text(values) else "value",
        rarest=min(counts.values(), default=0),
        lists=listed(cells),
    )


def _is_conversation(value: Any) -> bool:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)
    )


def _reads_as_text(values: Sequence[Any]) -> bool:
    """Mostly words: letters outweigh digits, and there are blanks between them or the script needs none."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(texts) < len(values) / 2:
        return False
    wordy = sum(
        (" " in text.strip() or not text.isascii()) and len(_WORD.findall(text[:500])) >= len(text[:500]) / 3
        for text in texts
    )
    return wordy >= len(texts) / 3  # short remarks of one word are text too, keys and addresses never have blanks


def rank(name: str, hints: Sequence[str]) -> int | None:
    """The place of the hint that a column's name is, or has as a word (then after all that are exact), or None."""
    lower = name.strip().lower()
    if lower in hints:
        return hints.index(lower)
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name.strip()) if word]
    places = [len(hints) + hints.index(word.lower()) for word in words if word.lower() in hints and len(word) > 1]
    return min(places, default=None)


def _from_options(text: Column, label: Column) -> Inference:
    if text.lists is not None and label.lists is not None:
        return _tagged(text, label)
    if label.lists is not None:
        return _several(text, label)
    if label.is_text and not label.is_label:
        return Inference(
            "chat",
            {"prompt": text.name, "completion": label.name},
            (f"{label.name!r} holds free text ({_profile(label)}), so it is what to answer",),
            (),
        )
    return Inference(
        "classify",
        {"text": text.name, "label": label.name},
        (f"{text.name!r} and {label.name!r} as you named them; {label.name!r} has {label.distinct} values",),
        _class_warnings(label),
    )


def _from_names(columns: Mapping[str, Column], named: Sequence[str]) -> Inference | None:
    """A form by its usual names, unless the user named a column of another form."""
    forms = {shape: form for shape, form in SHAPES.items() if "text" not in form[0]}  # `text` alone tells little
    for shape, (must, may) in forms.items():
        used = [name for name in (*must, *may) if name in columns]
        if all(name in columns for name in must) and set(named) <= set(used):
            others = [name for name in columns if name not in used]
            task = TASK_OF_SHAPE[shape]
            return Inference(
                task,
                {name: name for name in used},
                (f"it has {_listed(used)}: a {task} task", *_others(others)),
                (),
            )
    conversations = [column.name for column in columns.values() if column.kind == "conversation"]
    if len(conversations) == 1 and set(named) <= set(conversations):
        return Inference(
            "chat", {"messages": conversations[0]}, (f"{conversations[0]!r} holds lists of messages: a chat task",), ()
        )
    return None


def _from_lists(columns: Sequence[Column], file: str, text: str | None, label: str | None) -> Inference | None:
    """Words with their tags, or texts with any number of labels, where columns hold lists."""
    for words in columns:
        for tags in columns:
            if words.lists is None or tags.lists is None or words is tags or not words.lists.pairs_with(tags.lists):
                continue
            richer = words.lists.distinct > tags.lists.distinct and tags.lists.repeats
            if richer and text in (None, words.name) and label in (None, tags.name):
                return _tagged(words, tags)
    lists = [c for c in columns if c.lists is not None and c.lists.repeats and label in (None, c.name)]
    if not lists or (label is None and any(c.is_label and c.name.strip().lower() == "label" for c in columns)):
        return None
    labels = _label_column(lists, file)
    texts = [c for c in columns if c.is_text and not c.is_label and c.name != labels.name]
    return _several(_text_column(columns, texts, [labels], file, text), labels)


def _tagged(words: Column, tags: Column) -> Inference:
    kinds = 0 if tags.lists is None else tags.lists.distinct
    reason = f"{words.name!r} and {tags.name!r} hold lists of one length, the second of {kinds} tags: a tagging task"
    return Inference("tag", {"tokens": words.name, "tags": tags.name}, (reason,), ())


def _several(text: Column, labels: Column) -> Inference:
    kinds = 0 if labels.lists is None else labels.lists.distinct
    reasons = (
        f"{labels.name!r} holds lists of {kinds} labels: a classification task with any number of labels a text",
        f"{text.name!r} holds the text ({_profile(text)})",
    )
    return Inference("multilabel", {"text": text.name, "labels": labels.name}, reasons, ())


def _from_content(columns: Sequence[Column], file: str, text: str | None, label: str | None) -> Inference:
    texts = [c for c in columns if c.is_text and not c.is_label and c.name != label]
    labels = [c for c in columns if c.is_label and c.name != text]
    if label is not None:
        labels = [c for c in columns if c.name == label]
        if labels[0].is_text and not labels[0].is_label:
            return _pair(_only_prompt(texts, labels[0], file), labels[0])
    pair = _question_and_answer(texts) if label is None else None
    exact = any(c.name.strip().lower() in {"label", "labels"} for c in labels)
    if pair is not None and text in (None, pair[0].name) and not exact:
        return _pair(*pair, others=labels)
    if labels:
        return _classify(_text_column(columns, texts, labels, file, text), _label_column(labels, file), texts, labels)
    if label is None and len(texts) == 2:
        first, second = texts if text in (None, texts[0].name) else reversed(texts)
        return _pair(first, second)
    if label is None and len(texts) == 1 and texts[0].length >= SHORTEST_DOCUMENT:
        return _document(texts[0])
    raise _unclear(columns, file, texts)


def _document(text: Column) -> Inference:
    reason = (
        f"{text.name!r} is the only free text ({_profile(text)}), and nothing is its label: raw text to pretrain on"
    )
    return Inference("pretrain", {"text": text.name}, (reason,), ())


def _question_and_answer(texts: Sequence[Column]) -> tuple[Column, Column] | None:
    """Two columns of free text whose names say which asks and which answers."""
    prompts = [c for c in texts if rank(c.name, PROMPT_HINTS) is not None]
    completions = [c for c in texts if rank(c.name, COMPLETION_HINTS) is not None]
    pairs = [(p, c) for p in prompts for c in completions if p.name != c.name]
    if not pairs:
        return None
    return min(pairs, key=lambda pair: (_place(pair[0].name, PROMPT_HINTS), _place(pair[1].name, COMPLETION_HINTS)))


def _place(name: str, hints: Sequence[str]) -> int:
    place = rank(name, hints)
    return 2 * len(hints) if place is None else place


def _only_prompt(texts: Sequence[Column], answer: Column, file: str) -> Column:
    others = [c for c in texts if c.name != answer.name]
    if not others:
        raise _unclear([answer], file, others)
    return min(others, key=lambda c: (_place(c.name, PROMPT_HINTS), -c.length))


def _pair(prompt: Column, completion: Column, others: Sequence[Column] = ()) -> Inference:
    reasons = [
        f"{prompt.name!r} and {completion.name!r} both hold free text ({_profile(prompt)}; {_profile(completion)}):"
        f" a chat task in which {prompt.name!r} asks and {completion.name!r} answers",
    ]
    if others:
        reasons.append(f"considered as labels: {_listed([c.name for c in others])}; --label chooses one")
    return Inference("chat", {"prompt": prompt.name, "completion": completion.name}, tuple(reasons), ())


def _text_column(
    columns: Sequence[Column], texts: Sequence[Column], labels: Sequence[Column], file: str, named: str | None
) -> Column:
    if named is not None:
        return next(c for c in columns if c.name == named)
    # Where texts repeat much, a column of words that is no label will do.
    candidates = list(texts) or [c for c in columns if c.kind == "text" and c not in labels]
    if not candidates:
        raise _unclear(columns, file, texts)
    return max(candidates, key=lambda c: c.length)


def _label_column(labels: Sequence[Column], file: str) -> Column:
    if len(labels) == 1:
        return labels[0]
    hinted = sorted((c for c in labels if rank(c.name, LABEL_HINTS) is not None), key=_label_place)
    if hinted:
        return hinted[0]
    names = [c.name for c in labels]
    raise BadInput(
        what="several columns could be the label",
        where=file,
        found=f"{_listed(names)}, each with a few values that repeat",
        expected="one column that tells the classes",
        way_out=f"give --label {names[0]} (or another of them)",
    )


def _label_place(column: Column) -> int:
    return _place(column.name, LABEL_HINTS)


def _classify(text: Column, label: Column, texts: Sequence[Column], labels: Sequence[Column]) -> Inference:
    reasons = [
        f"{label.name!r} has {label.distinct} values in {label.filled} rows: the label of a classification task",
        f"{text.name!r} holds the longest text ({_profile(text)})",
    ]
    reasons += [f"considered as text: {c.name!r} ({_profile(c)})" for c in texts if c not in (text, label)]
    reasons += [f"considered as label: {c.name!r} ({c.distinct} values)" for c in labels if c not in (text, label)]
    return Inference("classify", {"text": text.name, "label": label.name}, tuple(reasons), _class_warnings(label))


def _class_warnings(label: Column) -> tuple[str, ...]:
    if label.distinct < 2:
        return (f"{label.name!r} has one value only",)
    if label.rows_per_value < ROWS_PER_HINTED_CLASS:
        return (f"the {label.distinct} values of {label.name!r} hardly repeat; are they classes?",)
    if label.rarest < FEW_PER_CLASS:
        return (f"the rarest value of {label.name!r} has {label.rarest} rows; that is few to learn from",)
    return ()


def _with_group(found: Inference, columns: Sequence[Column], notes: Sequence[str]) -> Inference:
    """Add a column that names users or threads, if there is one whose values repeat."""
    free = [c for c in columns if c.name not in found.columns.values() and c.name.strip().lower() in GROUP_HINTS]
    groups = [c for c in free if 1 < c.distinct < c.filled]
    warnings = (*found.warnings, *notes)
    if not groups:
        return Inference(found.task, found.columns, found.reasons, warnings)
    group = groups[0]
    reason = f"{group.name!r} repeats ({group.rows_per_value:.1f} rows each), so its rows stay on one side of the split"
    return Inference(found.task, {**found.columns, "group": group.name}, (*found.reasons, reason), warnings)


def _unclear(columns: Sequence[Column], file: str, texts: Sequence[Column]) -> BadInput:
    shown = "; ".join(f"{c.name!r} ({_profile(c)})" for c in columns[:10])
    return BadInput(
        what="the file does not show what it is for",
        where=file,
        found=shown,
        expected="a column of texts and one of labels, or two columns of free text, or messages",
        way_out=f"give --text {texts[0].name if texts else 'COLUMN'} --label COLUMN",
    )


def _profile(column: Column) -> str:
    if column.kind == "conversation":
        return "lists of messages"
    return f"{column.distinct} different values in {column.filled} rows, {column.length:.0f} characters on average"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _others(names: Sequence[str]) -> tuple[str, ...]:
    return (f"not used: {_listed(names)}",) if names else ()
