"""The project file's `data` list, and how its files are read."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from thriftune.options import Options
from thriftune.tasks.kinds import TaskName

Shape = Literal["text", "labels", "tokens", "pair", "instruction", "messages", "preference", "document"]

# For each way to write a row down: the columns it must name, then those it may.
SHAPES: dict[Shape, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text", "label"), ()),
    "labels": (("text", "labels"), ()),
    "tokens": (("tokens", "tags"), ()),
    "pair": (("prompt", "completion"), ()),
    "instruction": (("instruction", "output"), ("input",)),
    "messages": (("messages",), ()),
    "preference": (("prompt", "chosen", "rejected"), ()),
    "document": (("text",), ()),
}
TASK_OF_SHAPE: dict[Shape, TaskName] = {
    "text": "classify",
    "labels": "multilabel",
    "tokens": "tag",
    "pair": "chat",
    "instruction": "chat",
    "messages": "chat",
    "preference": "prefer",
    "document": "pretrain",
}


def forms_for(task: str | None = None) -> str:
    """The forms that rows can have, for one task or for all, in words."""
    return "; ".join(
        " and ".join(must) + "".join(f", perhaps {name}" for name in may)
        for shape, (must, may) in SHAPES.items()
        if task in (None, TASK_OF_SHAPE[shape])
    )


class Source(Options):
    """One file of rows, and the names of its columns."""

    file: str = Field(
        min_length=1, description="A CSV, TSV, JSONL, JSON or Parquet file, from the project file's folder"
    )
    text: str | None = Field(
        default=None,
        description="Classification, labels: the column of texts; pretraining: that of documents, without a label",
    )
    label: str | None = Field(
        default=None, description="Classification: the column of labels; numbers become their text"
    )
    labels: str | None = Field(
        default=None,
        description="Any number of labels: the column of lists of labels; in a cell of text a JSON list, or labels set"
        " apart by `;`",
    )
    tokens: str | None = Field(
        default=None, description="Tagging: the column of sentences as lists of words; in a cell of text a JSON list"
    )
    tags: str | None = Field(default=None, description="Tagging: the column of lists of tags, one for each word")
    prompt: str | None = Field(
        default=None, description="Chat and preferences: the column of what the user says, or of conversations"
    )
    completion: str | None = Field(default=None, description="Chat: the column of what the assistant answers")
    instruction: str | None = Field(default=None, description="Chat, Alpaca's form: the column of instructions")
    input: str | None = Field(
        default=None, description="Chat, Alpaca's form: the column of what an instruction works on"
    )
    output: str | None = Field(default=None, description="Chat, Alpaca's form: the column of answers")
    messages: str | None = Field(
        default=None, description="Chat: the column of conversations, lists of {role, content}"
    )
    chosen: str | None = Field(default=None, description="Preferences: the column of the better answers")
    rejected: str | None = Field(default=None, description="Preferences: the column of the worse answers")
    group: str | None = Field(
        default=None,
        description="A column, such as a user's or a thread's id, whose rows must stay on one side of the split",
    )
    part: str | None = Field(
        default=None,
        min_length=1,
        max_length=60,
        description="The task, domain or stage that the file's rows are of, where there are several: train.order says"
        " how they come, and each is measured apart",
    )
    id: str | None = Field(
        default=None, description="A column that names each row; without it a row is named by a hash of its content"
    )
    licence: str = Field(default="unknown", description="The licence of the data; it travels with every row")
    encoding: str | None = Field(default=None, description="The text encoding, where detecting it goes wrong")
    delimiter: Literal[",", ";", "\t", "|"] | None = Field(
        default=None, description="The delimiter, where detecting it goes wrong"
    )

    @model_validator(mode="after")
    def _names_one_shape(self) -> Self:
        allowed = [set(must) | set(may) for must, may in SHAPES.values()]
        given = {name for name in set().union(*allowed) if getattr(self, name) is not None}
        complete = any(set(must) <= given <= set(must) | set(may) for must, may in SHAPES.values())
        if not complete:
            raise ValueError(
                f"the columns of one form: {forms_for()} (found {', '.join(sorted(given)) or 'none of them'});"
                " `thriftune init FILE` infers them"
            )
        return self

    @property
    def shape(self) -> Shape:
        """How a row is written down."""
        return next(shape for shape, (must, _) in SHAPES.items() if all(getattr(self, name) for name in must))

    @property
    def task(self) -> TaskName:
        """The task that rows of this shape are for."""
        return TASK_OF_SHAPE[self.shape]

    @property
    def columns(self) -> dict[str, str]:
        """What each named column of the file is for: role → column name, optional ones included."""
        must, may = SHAPES[self.shape]
        roles = (*must, *may, "group", "id")
        return {role: column for role in roles if (column := getattr(self, role)) is not None}


class CollectOptions(Options):
    """How sources are read."""

    bad_row_limit: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The share of rows that may be unreadable before it stops: a few broken lines are usual in an"
        " export, one in a hundred says that the file is not what it seems",
    )
    no_value_limit: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The share of rows that may lack a text or a label: partly labelled exports are usual, but where"
        " most rows have none the wrong column was named",
    )
