"""The predictor that has learned nothing but the most frequent answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thriftune.tasks.base import Prediction, Request

FILE = "majority.json"


@dataclass(frozen=True)
class MajorityPredictor:
    """Always the same answer.

    Args:
        answer: the most frequent one; of equally frequent ones the first in the alphabet.
        shares: for labels, how frequent each is; empty for texts.
        name: as shown in reports.
    """

    answer: str
    shares: dict[str, float]
    name: str = "majority"

    @staticmethod
    def fit(targets: Sequence[str], labels: bool) -> MajorityPredictor:
        """Count the answers.

        Args:
            targets: (rows,) at least one.
            labels: whether they are labels, whose shares serve as probabilities.
        """
        counts = Counter(targets)
        answer = min(counts, key=lambda target: (-counts[target], target))
        shares = {label: counts[label] / len(targets) for label in sorted(counts)} if labels else {}
        return MajorityPredictor(answer, shares)

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """The answer, once a request."""
        return [Prediction(self.answer, dict(self.shares)) for _ in requests]

    def save(self, folder: Path) -> None:
        """Write `majority.json` into a folder that is there."""
        about = {"answer": self.answer, "shares": self.shares}
        (folder / FILE).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> MajorityPredictor:
        """What `save` wrote."""
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return MajorityPredictor(about["answer"], about["shares"])
