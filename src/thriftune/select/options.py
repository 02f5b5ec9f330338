"""Selection's part of the project file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from thriftune.errors import BadInput
from thriftune.options import Options
from thriftune.tasks.kinds import BaselineName, kind_of


def _auto(value: Any) -> Any:
    return None if value == "auto" else value


class SelectOptions(Options):
    """What the tuned model is held against, and how the cheap ones are made.

    `majority` always gives the most frequent answer; `tfidf` is logistic regression on words and pairs of words;
    `unigram` gives each word the tag that it most often has; `retrieval` gives the answer of the most similar question
    of the training rows; `longer` prefers the longer of two answers; `untuned` is the model as it came.
    """

    baselines: Annotated[tuple[BaselineName, ...] | None, BeforeValidator(_auto)] = Field(
        default=None,
        min_length=1,
        description="All that suit the task: a model worth its cost beats the cheap ones too",
    )
    tfidf_c: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 3.0, 10.0, 30.0, 100.0),
        min_length=1,
        description="Inverse strengths of regularisation to choose from; on four data sets the best was from 3 to 100",
    )
    max_rows: int = Field(
        default=50_000,
        ge=100,
        description="Training rows that the cheap baselines see at most, drawn by hash; they gain little from more",
    )

    def baselines_for(self, task: str) -> tuple[BaselineName, ...]:
        """The baselines of a task, "auto" resolved.

        Raises:
            BadInput: a baseline that does not suit the task.
        """
        known = kind_of(task).baselines
        wrong = [name for name in self.baselines or () if name not in known]
        if wrong:
            raise BadInput(
                "this baseline does not suit the task",
                where="select.baselines",
                found=f"{wrong[0]} for {task}",
                expected=f"some of {', '.join(known)}",
                way_out="name some of these, or leave it out for all of them",
            )
        return self.baselines or known
