"""The judge that has learned nothing but that people like long answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thriftune.tasks.base import Prediction, Request

FILE = "longer.json"


@dataclass(frozen=True)
class LongerPredictor:
    """Prefers the answer with more characters, a strong baseline where people compared answers.

    Source: Singhal et al., "A Long Way to Go: Investigating Length Correlations in RLHF", COLM 2024.
    """

    name: str = "longer"

    def judge(
        self, requests: Sequence[Request], first: Sequence[str], second: Sequence[str]
    ) -> tuple[NDArray[np.float64], None]:
        """(rows,) by how many characters the first answer is the longer one; and no likelihoods."""
        gains = [len(ours) - len(theirs) for ours, theirs in zip(first, second, strict=True)]
        return np.array(gains, dtype=np.float64), None

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """It has no answers of its own: an empty one a request."""
        return [Prediction("") for _ in requests]

    def save(self, folder: Path) -> None:
        """Write `longer.json` into a folder that is there."""
        (folder / FILE).write_text(json.dumps({}), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> LongerPredictor:
        """What `save` wrote."""
        return LongerPredictor()
