"""The second stage: repaired rows without duplicates, on three sides that share nothing.

Steps, in order: over-long rows out (before anything reads them), HTML entities, Unicode repair, whitespace, empty rows
out, duplicates out, conflicts reported, split. Each balances its ledger entry to the row; one that drops more than its
limit stops the line. The steps that change what a model reads are named in `Splits.serving_steps`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.artifacts import recipe_key
from thriftune.budget.forecast import Forecast
from thriftune.collect.ledger import record
from thriftune.collect.types import Corpus, LedgerEntry
from thriftune.errors import BadInput
from thriftune.prepare.options import PrepareOptions
from thriftune.prepare.types import SIDES, CleaningStep, Dropped, Splits
from thriftune.tasks.kinds import Target, kind_of

if TYPE_CHECKING:
    import polars as pl

    from thriftune.context import Context
    from thriftune.tasks.heads import HeadsOption

STAGE = "prepare"
VERSION = 2  # raised when the same corpus would give other splits
DETAILS_FILE = "preparation.json"
# Measured at 100,000 and 1,000,000 synthetic rows in characters per second of processor time, where a fifth of the rows
# needed Unicode repair: 5e6 (plain ASCII: 17e6). The forecast's p95 is five times its median, for text that is all
# accents and a machine that is shared.
START_SECONDS = 0.3
CHARACTERS_PER_SECOND = 5e6
SPREAD = 4.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def run(corpus: Corpus, options: PrepareOptions, context: Context, heads: HeadsOption | None = None) -> Splits:
    """Clean and split a corpus, or find the splits made from the same one.

    Args:
        corpus: what collecting made.
        options: limits, proportions, policies.
        context: artifacts, events and the meter.
        heads: train.heads, where the data has parts whose labels may be those of different tasks; else None.

    Returns:
        the splits; their ledger entries are also `data.entry` events, and a side that chance does not explain is a
        `warning` event.

    Raises:
        BadInput: a step drops more than its limit, or a side or a class would be empty.
        OutOfBudget: preparing does not fit into what is left.
    """
    with context.meter.unit("collection", STAGE, upper_seconds=estimate(corpus.characters).p95):
        names = serving_steps(corpus.task, options)
        recipe = {"options": options.model_dump(mode="json"), "task": corpus.task}
        recipe |= {} if heads is None else {"heads": heads}
        key = recipe_key(STAGE, VERSION, {"corpus": corpus.content_hash}, recipe, _libraries())
        artifact = context.artifacts.build(STAGE, key, recipe, lambda folder: _write(folder, corpus, options, heads))
        details = json.loads((artifact.folder / DETAILS_FILE).read_text(encoding="utf-8"))
        entries = tuple(LedgerEntry.from_data(entry) for entry in details["entries"])
        record(entries, context)
        for warning in details["report"]["warnings"]:
            context.events.emit("warning", where=STAGE, what=warning)
    rows = details["report"]["rows"]
    return Splits(
        folder=artifact.folder,
        content_hash=artifact.content_hash,
        train=artifact.folder / "train.parquet",
        validation=artifact.folder / "validation.parquet",
        test=artifact.folder / "test.parquet",
        entries=corpus.entries + entries,
        serving_steps=names,
        proportions={side: rows[side] / sum(rows.values()) for side in SIDES},
        report=details["report"],
        task=corpus.task,
    )


def estimate(characters: int) -> Forecast:
    """Seconds that preparing takes, by the characters of the corpus (before there is one, by its files' bytes)."""
    return Forecast.lognormal(START_SECONDS + characters / CHARACTERS_PER_SECOND, spread=SPREAD, basis="prior")


def serving_steps(task: str, options: PrepareOptions) -> tuple[str, ...]:
    """The names of the cleaning steps, in order; a server runs the same ones."""
    entities = options.entities if options.entities is not None else not kind_of(task).generates
    return (("entities",) if entities else ()) + ("repair", "whitespace")


class Line:
    """The rows on their way, and the ledger of what became of them.

    Args:
        frame: the corpus.
        options: limits.
        target: what a target is made of.
    """

    def __init__(self, frame: pl.DataFrame, options: PrepareOptions, target: Target = "whole") -> None:
        self.frame = frame
        self._target = target
        self.entries: list[LedgerEntry] = []
        self._options = options

    def clean(self, step: CleaningStep) -> None:
        """Change rows; none is dropped."""
        from thriftune.prepare.serving import clean_frame

        rows = len(self.frame)
        self.frame, changed = clean_frame(self.frame, step, self._target)
        self.entries.append(LedgerEntry(step.name, rows, len(self.frame), changed=changed))

    def drop(self, step: str, done: Dropped, limit: float | None = None) -> Dropped:
        """Go on with the rows that a step left.

        Raises:
            BadInput: it dropped more than its limit, `drop_limit` unless another is given.
        """
        entry = LedgerEntry(step, len(self.frame), len(done.frame), done.reasons, notes=done.notes)
        most = self._options.drop_limit if limit is None else limit
        gone = entry.rows_in - entry.kept
        if gone > most * entry.rows_in:
            raise _drops_too_much(entry, most, "drop_limit" if limit is None else "duplicate_limit", self.frame)
        self.frame = done.frame
        self.entries.append(entry)
        return done


def prepare(
    frame: pl.DataFrame, task: str, options: PrepareOptions, heads: HeadsOption | None = None
) -> tuple[pl.DataFrame, list[LedgerEntry], Any]:
    """The corpus's frame cleaned and split.

    Where each part has a head of its own, rows of different parts are never duplicates nor in conflict, and labels are
    counted by part; one text is still on one side in all parts.

    Returns:
        the rows that stay, with their side in the column `split.SIDE`; the ledger; the data report.

    Raises:
        BadInput: a step drops more than its limit, or a side or a class would be empty.
    """
    from thriftune.prepare import split
    from thriftune.prepare.keys import content_keys
    from thriftune.prepare.serving import STEPS
    from thriftune.prepare.steps.conflicts import conflicts
    from thriftune.prepare.steps.duplicates import duplicates
    from thriftune.prepare.steps.empty import empty
    from thriftune.prepare.steps.overlong import overlong
    from thriftune.tasks.heads import choose_heads, named_targets
    from thriftune.tasks.targets import classes_of

    where = ", ".join(frame["source"].unique(maintain_order=True))
    line = Line(frame, options, kind_of(task).target)
    line.drop("overlong", overlong(line.frame, options.longest_row))
    for name in serving_steps(task, options):
        line.clean(STEPS[name])
    line.drop("empty", empty(line.frame, targets=kind_of(task).asked != "likelihoods"))
    line.frame = line.frame.with_columns(content_keys(line.frame))
    chosen = None if heads is None else choose_heads(heads, line.frame, task)
    by_part = chosen is not None and chosen[0] == "by_part"
    within = ["part"] if by_part else []
    repeated = line.drop("duplicates", duplicates(line.frame, within), options.duplicate_limit)
    conflicting = line.drop("conflicts", conflicts(line.frame, options.conflicts, within))
    assigned = split.assign(line.frame, options.proportions)
    targets = named_targets(assigned["target"], assigned["part"], task) if by_part else assigned["target"]
    classes = classes_of(targets, task) if kind_of(task).classes else None
    whole = kind_of(task).target == "whole"
    split.check(assigned, options.proportions, classes if whole else None, where)
    balances = split.balance(assigned, options.proportions, classes)
    report = {
        **_report(assigned, classes),
        "duplicates": sum(repeated.reasons.values()),
        "conflicts": {"notes": list(conflicting.notes), "examples": list(conflicting.examples)},
        "balance": [asdict(each) | {"holds": each.holds} for each in balances],
        "warnings": [
            *([] if whole or classes is None else map(_unlearnt, split.unseen(assigned, classes))),
            *(_unbalanced(each) for each in balances if not each.holds),
        ],
    }
    if chosen is not None:
        report["heads"] = {"chosen": chosen[0], "because": chosen[1]}
    shares = ", ".join(f"{side} {count}" for side, count in report["rows"].items())
    line.entries.append(LedgerEntry("split", len(assigned), len(assigned), notes=(shares, *report["warnings"])))
    return assigned, line.entries, report


def _write(folder: Path, corpus: Corpus, options: PrepareOptions, heads: HeadsOption | None) -> None:
    import polars as pl

    from thriftune.prepare.split import SIDE

    frame = corpus.frame()
    assigned, entries, report = prepare(frame, corpus.task, options, heads)
    for side in SIDES:
        assigned.filter(pl.col(SIDE) == side).select(frame.columns).write_parquet(folder / f"{side}.parquet")
    details = {"entries": [entry.as_data() for entry in entries], "report": report}
    (folder / DETAILS_FILE).write_text(json.dumps(details, ensure_ascii=False, indent=1), encoding="utf-8")


def _report(assigned: pl.DataFrame, classes: pl.Series | None) -> dict[str, Any]:
    """Rows by side and class, and quantiles of their length in characters."""
    import polars as pl

    from thriftune.collect.canonical import lengths
    from thriftune.prepare.split import SIDE, by_class

    sides = {side: assigned.filter(pl.col(SIDE) == side) for side in SIDES}
    report: dict[str, Any] = {
        "rows": {side: len(rows) for side, rows in sides.items()},
        "characters": {side: _quantiles(lengths(rows)) for side, rows in sides.items()},
    }
    if classes is not None:
        counts = (
            by_class(assigned, classes)
            .group_by("label")
            .agg((pl.col(SIDE) == side).sum().alias(side) for side in SIDES)
        )
        report["labels"] = {row.pop("label"): row for row in counts.sort("label").iter_rows(named=True)}
    return report


def _quantiles(lengths: pl.Series) -> dict[str, float | None]:
    named = {f"p{100 * level:.0f}": lengths.quantile(level, "linear") for level in QUANTILES}
    return named | {"max": lengths.quantile(1.0)}


def _unlearnt(label: str) -> str:
    return f"no row to train on has {label}: it will not be learnt, and counts as missed"


def _unbalanced(each: Any) -> str:
    of = "rows" if each.label is None else f"rows of {each.label!r}"
    return (
        f"{each.side} got {each.rows} {of}, {each.expected:.0f} ± {each.tolerance:.0f} were expected: rows that must"
        " stay together (a group, a prompt) weigh too much for the proportions asked for"
    )


def _drops_too_much(entry: LedgerEntry, limit: float, option: str, frame: pl.DataFrame) -> BadInput:
    gone = entry.rows_in - entry.kept
    reasons = ", ".join(f"{count} × {reason}" for reason, count in entry.dropped.items())
    return BadInput(
        what=f"the step {entry.step} would drop {gone} of {entry.rows_in} rows",
        where=", ".join(frame["source"].unique(maintain_order=True)),
        found=reasons,
        expected=f"at most {limit:.0%} of the rows",
        way_out=f"look at these rows; if they should go, raise prepare.{option}",
    )


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("polars", "ftfy")}
