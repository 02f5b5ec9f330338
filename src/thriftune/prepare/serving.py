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


def clean_frame(frame: pl.DataFrame, step: CleaningStep) -> tuple[pl.DataFrame, int]:
    """The frame with texts or turns, and targets, as the step leaves them; and how many rows it changed."""
    import polars as pl

    from thriftune.collect.canonical import answer_columns
    from thriftune.collect.turns import apart, together

    answers = [clean_column(frame[name], step) for name in answer_columns(frame)]
    changed = pl.Series([False]).new_from_index(0, len(frame))
    for answer in answers:
        changed |= answer != frame[answer.name]
    if "text" in frame.columns:
        content = clean_column(frame["text"], step)
        changed |= content != frame["text"]
    else:
        turns = apart(frame["messages"])
        cleaned = clean_column(turns["content"], step)
        touched = turns["at"].filter(cleaned != turns["content"]).unique()
        changed |= pl.int_range(len(frame), eager=True).is_in(touched.implode())
        content = together(turns.with_columns(cleaned))
    return frame.with_columns(content, *answers), int(changed.sum())
