"""The first stage: every source into one corpus, each row with its provenance, each lost row with its reason.

Features: CSV, TSV, JSON Lines, JSON and Parquet; encoding and dialect detected; classification, prompt and
completion, instruction and messages. A row that cannot be read is counted with its line number, and more than
`bad_row_limit` of them stop it. Equal sources and options find the corpus that is there already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.artifacts import recipe_key
from thriftune.budget.forecast import Forecast
from thriftune.collect.ledger import record
from thriftune.collect.options import CollectOptions, Source, forms_for
from thriftune.collect.readers import PARQUET, BadRow, BadRows, check_file, open_source
from thriftune.collect.types import CORPUS_FILE, Corpus, LedgerEntry
from thriftune.errors import BadInput
from thriftune.tasks.kinds import kind_of

if TYPE_CHECKING:
    import polars as pl

    from thriftune.context import Context

STAGE = "collect"
# Measured at 100,000 synthetic rows in bytes per second of processor time: CSV 8 MB, JSON Lines 7 MB, Parquet 5 MB (of
# twice as much text). The forecast's p95 is five times its median: the two cores of a shared machine were seen to give
# less than half of that.
START_SECONDS = 0.5
BYTES_PER_SECOND = 7e6
PARQUET_BYTES_PER_SECOND = 4e6
SPREAD = 4.0
VERSION = 2  # raised when the same sources would give another corpus
DETAILS_FILE = "collection.json"


@dataclass(frozen=True)
class Collected:
    """What one source gave.

    Args:
        file: its name.
        rows_in: its rows, good and bad.
        kept: its usable rows.
        dropped: the others, by reason.
        bad_rows: the first unreadable ones.
        notes: how it was read, a phrase each.
    """

    file: str
    rows_in: int
    kept: int
    dropped: dict[str, int]
    bad_rows: list[BadRow]
    notes: tuple[str, ...]


def run(sources: Sequence[Source], task: str, options: CollectOptions, context: Context, base: Path) -> Corpus:
    """Read all sources into one corpus, or find the one made from the same sources.

    Args:
        sources: files and their columns.
        task: `classify` or `chat`.
        options: limits.
        context: artifacts, events and the meter.
        base: the folder that the sources' names start from.

    Returns:
        the corpus; its ledger entry is also a `data.entry` event.

    Raises:
        BadInput: a source cannot be used, too many rows are bad, or there is nothing to learn from.
        OutOfBudget: reading does not fit into what is left.
    """
    check(sources, task, base)
    with context.meter.unit("collection", STAGE, upper_seconds=estimate(sources, base).p95):
        hashes = {source.file: _file_hash(path_of(source, base)) for source in sources}
        recipe = {
            "sources": [source.model_dump(mode="json") | {"hash": hashes[source.file]} for source in sources],
            "task": task,
            "options": options.model_dump(mode="json"),
        }
        key = recipe_key(STAGE, VERSION, hashes, recipe, _libraries())
        artifact = context.artifacts.build(
            STAGE, key, recipe, lambda folder: _write(folder, sources, task, options, base)
        )
        details = json.loads((artifact.folder / DETAILS_FILE).read_text(encoding="utf-8"))
        entry = LedgerEntry.from_data(details["entry"])
        record([entry], context)
    return Corpus(artifact.folder, artifact.content_hash, entry.kept, (entry,), task, details["characters"])


def path_of(source: Source, base: Path) -> Path:
    """Where a source's file lies: its name from the folder `base`, or absolute, or from a user's home (`~`)."""
    return base / Path(source.file).expanduser()


def check(sources: Sequence[Source], task: str, base: Path) -> None:
    """Raise `BadInput` if there is no source, one is for another task, or its file cannot be read; without reading."""
    if not sources:
        raise BadInput("there is no data", "data", "an empty list", "at least one file", "name a file under `data`")
    for source in sources:
        if source.task != task:
            raise BadInput(
                what=f"the columns are those of a {source.task} task",
                where=source.file,
                found=f"columns for {', '.join(source.columns)}, with task: {task}",
                expected=forms_for(task),
                way_out=f"name the columns for {task}, or set task: {source.task}",
            )
        check_file(path_of(source, base), source.file)


def estimate(sources: Sequence[Source], base: Path) -> Forecast:
    """Seconds that collecting takes, by the size of the files."""
    files = [path_of(source, base) for source in sources if path_of(source, base).is_file()]
    seconds = sum(file.stat().st_size / _rate(file) for file in files)
    return Forecast.lognormal(START_SECONDS + seconds, spread=SPREAD, basis="prior")


def _rate(file: Path) -> float:
    """Bytes a second."""
    return PARQUET_BYTES_PER_SECOND if file.suffix.lower() in PARQUET else BYTES_PER_SECOND


def read_source(source: Source, options: CollectOptions, base: Path) -> tuple[pl.DataFrame, Collected]:
    """All usable rows of one source, and the account of the others.

    Raises:
        BadInput: it cannot be used, or too many of its rows are bad or lack a value.
    """
    from thriftune.collect.canonical import Canonical, concatenate

    wanted = list(dict.fromkeys(source.columns.values()))
    reader = open_source(path_of(source, base), source.file, source.encoding, source.delimiter, wanted)
    bad = BadRows(source.file, options.bad_row_limit, reader.most_rows)
    canonical = Canonical(source, bad)
    frames = [canonical.frame(batch) for batch in reader.batches(wanted, bad)]
    lacking = canonical.dropped.total()
    rows_in = canonical.kept + lacking + bad.total
    bad.check(rows_in)
    if rows_in == 0:
        raise BadInput("there are no rows", source.file, "a header at most", "rows of data", "export it again")
    if lacking > options.no_value_limit * rows_in or not canonical.kept:
        raise _no_values(source, canonical.dropped, rows_in, options.no_value_limit)
    notes = reader.notes + ((f"{bad.blank} blank lines skipped",) if bad.blank else ())
    dropped = dict(canonical.dropped) | dict(bad.reasons)
    return concatenate(frames), Collected(source.file, rows_in, canonical.kept, dropped, bad.first, notes)


def _write(folder: Path, sources: Sequence[Source], task: str, options: CollectOptions, base: Path) -> None:
    from thriftune.collect.canonical import characters, concatenate

    parts = [read_source(source, options, base) for source in sources]
    corpus = concatenate(frame for frame, _ in parts)
    if kind_of(task).classes:
        _check_classes(corpus, sources, task)
    corpus.write_parquet(folder / CORPUS_FILE)
    details = {
        "characters": characters(corpus),
        "entry": _entry([collected for _, collected in parts]).as_data(),
        "sources": [asdict(collected) for _, collected in parts],
    }
    (folder / DETAILS_FILE).write_text(json.dumps(details, ensure_ascii=False, indent=1), encoding="utf-8")


def _entry(parts: Sequence[Collected]) -> LedgerEntry:
    dropped: dict[str, int] = {}
    notes = []
    for part in parts:
        for reason, count in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        notes.append(f"{part.file}: {part.kept} of {part.rows_in} rows" + "".join(f"; {note}" for note in part.notes))
        if part.bad_rows:
            shown = ", ".join(f"{bad.row} ({bad.reason})" for bad in part.bad_rows)
            notes.append(f"{part.file}: unreadable rows, the first: {shown}")
    return LedgerEntry(
        STAGE,
        rows_in=sum(part.rows_in for part in parts),
        kept=sum(part.kept for part in parts),
        dropped=dropped,
        notes=tuple(notes),
    )


def _no_values(source: Source, dropped: Mapping[str, int], rows: int, limit: float) -> BadInput:
    """The error for a source whose rows mostly lack a value, at the column that lacks most."""
    from thriftune.collect.canonical import NO_VALUE

    reason, count = max(dropped.items(), key=lambda item: item[1])
    roles = {
        NO_VALUE["text"]: ("text",),
        NO_VALUE["label"]: ("label", "labels"),
        NO_VALUE["tokens"]: ("tokens",),
        NO_VALUE["tags"]: ("tags",),
        NO_VALUE["prompt"]: ("prompt", "instruction", "messages"),
        NO_VALUE["answer"]: ("completion", "output", "messages"),
        NO_VALUE["chosen"]: ("chosen",),
        NO_VALUE["rejected"]: ("rejected",),
        NO_VALUE["preference"]: ("rejected",),
    }
    column = next(column for role, column in source.columns.items() if role in roles[reason])
    return BadInput(
        what="the column has no usable value" if count == rows else "most rows lack a value",
        where=f"{source.file}, column {column!r}",
        found=f"{count} of {rows} rows with {reason}",
        expected=f"a value in at least {1 - limit:.0%} of the rows",
        way_out="name another column, leave these rows out, or raise collect.no_value_limit",
    )


def _check_classes(corpus: pl.DataFrame, sources: Sequence[Source], task: str) -> None:
    from thriftune.tasks.targets import classes_of

    columns = [source.label or source.labels or source.tags for source in sources]
    where = ", ".join(f"{source.file}, column {column!r}" for source, column in zip(sources, columns, strict=True))
    if corpus["target"].n_unique() < 2:
        raise BadInput(
            what="there is one class only",
            where=where,
            found=f"{corpus['target'][0]!r} in all {len(corpus)} rows",
            expected="at least two different labels",
            way_out="name the column that tells the classes apart, or add rows of another class",
        )
    labels = classes_of(corpus["target"], task).explode().drop_nulls().unique()
    if len(labels) > max(2, len(corpus) / 2):
        raise BadInput(
            what="the labels hardly repeat",
            where=where,
            found=f"{len(labels)} different labels in {len(corpus)} rows",
            expected="a few classes with many rows each",
            way_out="name a column of categories, cut numbers into ranges, or use task: chat for free text",
        )


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=32)).hexdigest()


def _libraries() -> dict[str, Any]:
    from importlib.metadata import version

    return {name: version(name) for name in ("polars", "charset-normalizer")}
