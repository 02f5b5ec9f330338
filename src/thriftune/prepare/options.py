"""The project file's `prepare` part."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from thriftune.options import Options


class Proportions(Options):
    """The share of rows on each side of the split."""

    train: float = Field(
        default=0.8, ge=0.70, le=0.80, description="To learn from; most of the rows, since they cost a label"
    )
    validation: float = Field(
        default=0.1, ge=0.10, le=0.15, description="To choose when to stop and which checkpoint is best"
    )
    test: float = Field(
        default=0.1, ge=0.10, le=0.15, description="For the verdict only; more of it tells smaller differences"
    )

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, validation and test that add up to 1 (found {total:g})")
        return self


class PrepareOptions(Options):
    """How rows are cleaned, which are left out, and how they are split."""

    proportions: Proportions = Field(
        default=Proportions(), description="80/10/10: a tenth is enough for the verdict from some thousand rows on"
    )
    entities: bool | None = Field(
        default=None,
        description="Whether HTML entities such as &amp; become characters. By default yes for classification, where"
        " they are left over from web pages, and no for chat, where an answer may be about HTML",
    )
    longest_row: int = Field(
        default=200_000,
        ge=1,
        description="Characters a row may have: some fifty thousand tokens, beyond what any model here reads, so it is"
        " a broken export rather than a text",
    )
    conflicts: Literal["keep_first", "drop_all", "keep_all"] = Field(
        default="keep_first",
        description="What to do with one text under several labels; they are reported in any case. By default the"
        " first stays, since one of them is probably right and dropping all would lose the text",
    )
    drop_limit: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="The share of rows that one step may drop before it stops: a fifth of the data gone is a fault in"
        " the file or in the step, not cleaning",
    )
    duplicate_limit: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="The same for duplicates, which some sources are full of without being at fault",
    )
