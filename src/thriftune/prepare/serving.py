"""The steps that run in training and at serving: one function, two paths to it.

Training cleans whole columns and looks only at rows in which a step could find something; a server cleans one text.
A test compares both byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from thriftune.errors import BadInput
from thriftune.prepare.steps import entities, repair, whitespace
from thriftune.prepare.types import CleaningStep
from thriftune.tasks.kinds import Target
from thriftune.tasks.targets import read_list, write_labels, write_tags

if TYPE_CHECKING:
    import polars as pl

STEPS: dict[str, CleaningStep] = {step.name: step for step in (entities.STEP, repair.STEP, whitespace.STEP)}


def serving_pipeline(names: Sequence[str]) -> Callable[[str], str]:
    """What a server does to each request's text, and to the content of each message, before a model reads it.

    Args:
        names: `Splits.serving_steps`, as saved with the model.

    Raises:
        BadInput: a step is unknown here, so the model was prepared by another version.
    """
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        raise BadInput(
            what="the model needs a preparation step that is not here",
            where="serving_steps",
            found=", ".join(unknown),
            expected=f"some of {', '.join(STEPS)}",
            way_out="serve it with the version of Thriftune that trained it",
        )
    cleaners = [STEPS[name].clean for name in names]

    def clean(text: str) -> str:
        for cleaner in cleaners:
            text = cleaner(text)
        return text

    return clean


def clean_column(texts: pl.Series, step: CleaningStep) -> pl.Series:
    """The column as the step leaves it."""
    suspects = texts.str.contains(step.suspect).arg_true()
    if not len(suspects):
        return texts
    cleaned = [step.clean(text) for text in texts.gather(suspects).to_list()]
    return texts.clone().scatter(suspects, cleaned)


def clean_frame(frame: pl.DataFrame, step: CleaningStep, target: Target = "whole") -> tuple[pl.DataFrame, int]:
    """The frame with texts, words or turns, and targets, as the step leaves them; and how many rows it changed.

    Of a target that is a list each label or tag is cleaned for itself, as each word is, so that none loses its place.
    """
    import polars as pl

    from thriftune.collect.canonical import answer_columns
    from thriftune.collect.turns import apart, together

    answers = [_clean_answers(frame[name], step, target) for name in answer_columns(frame)]
    changed = pl.Series([False]).new_from_index(0, len(frame))
    for answer in answers:
        changed |= answer != frame[answer.name]
    content: pl.Series
    if "text" in frame.columns:
        content = clean_column(frame["text"], step)
        changed |= content != frame["text"]
    elif "tokens" in frame.columns:
        words = frame.select(pl.int_range(pl.len()).alias("at"), "tokens").explode("tokens")
        cleaned = clean_column(words["tokens"], step)
        touched = words["at"].filter(cleaned != words["tokens"]).unique()
        changed |= pl.int_range(len(frame), eager=True).is_in(touched.implode())
        content = words.with_columns(cleaned).group_by("at", maintain_order=True).agg("tokens")["tokens"]
    else:
        turns = apart(frame["messages"])
        cleaned = clean_column(turns["content"], step)
        touched = turns["at"].filter(cleaned != turns["content"]).unique()
        changed |= pl.int_range(len(frame), eager=True).is_in(touched.implode())
        content = together(turns.with_columns(cleaned))
    return frame.with_columns(content, *answers), int(changed.sum())


def _clean_answers(answers: pl.Series, step: CleaningStep, target: Target) -> pl.Series:
    """A column of targets as the step leaves it; of a list each label or tag for itself."""
    if target == "whole":
        return clean_column(answers, step)
    return _clean_lists(answers, step, write_labels if target == "labels" else write_tags)


def _clean_lists(targets: pl.Series, step: CleaningStep, write: Callable[[list[str]], str]) -> pl.Series:
    """Targets that are lists, each label or tag as the step leaves it; a label that it leaves nothing of is gone."""
    import polars as pl

    lists = [read_list(target) for target in targets]
    cleaned = {label: step.clean(label) for labels in lists for label in labels}
    if all(label == after for label, after in cleaned.items()):
        return targets
    kept = [[cleaned[label] for label in labels if cleaned[label] or write is write_tags] for labels in lists]
    return pl.Series(targets.name, [write(labels) for labels in kept], pl.String)
