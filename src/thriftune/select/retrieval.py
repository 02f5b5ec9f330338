"""The cheap chat baseline: the answer of the most similar question that the training rows hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from thriftune.select.vectors import TfidfVectors
from thriftune.tasks.base import Message, Prediction, Request

ANSWERS_FILE = "answers.json"
QUESTIONS_FILE = "questions.safetensors"
CHUNK_ENTRIES = 4_000_000  # similarities held at once: 32 MB


@dataclass(frozen=True)
class RetrievalPredictor:
    """Nearest question by the cosine of TF-IDF vectors.

    Args:
        vectors: questions to rows.
        questions: (training rows, terms) sparse.
        answers: (training rows,) their answers.
        name: as shown in reports.
    """

    vectors: TfidfVectors
    questions: Any
    answers: tuple[str, ...]
    name: str = "retrieval"

    @staticmethod
    def fit(requests: Sequence[Request], answers: Sequence[str]) -> RetrievalPredictor:
        """Remember questions and answers; at least one question is not blank."""
        asked = [question(request) for request in requests]
        vectors = TfidfVectors.fit(asked)
        return RetrievalPredictor(vectors, vectors.of(asked), tuple(answers))

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """The answer to the nearest question; among equally near ones the first, and so for a question unlike any."""
        if not requests:
            return []
        asked = self.vectors.of([question(request) for request in requests])
        size = max(1, CHUNK_ENTRIES // len(self.answers))
        nearest: list[int] = []
        for start in range(0, len(requests), size):
            similarity = (asked[start : start + size] @ self.questions.T).toarray()
            nearest += similarity.round(12).argmax(axis=1).tolist()
        return [Prediction(self.answers[row]) for row in nearest]

    def save(self, folder: Path) -> None:
        """Write vocabulary, questions and answers into a folder that is there."""
        from safetensors.numpy import save_file

        self.vectors.save(folder)
        (folder / ANSWERS_FILE).write_text(json.dumps(self.answers, ensure_ascii=False), encoding="utf-8")
        save_file(
            {
                "data": self.questions.data,
                "indices": self.questions.indices.astype(np.int64),
                "indptr": self.questions.indptr.astype(np.int64),
            },
            folder / QUESTIONS_FILE,
        )

    @staticmethod
    def load(folder: Path) -> RetrievalPredictor:
        """What `save` wrote; it gives the same answers."""
        from safetensors.numpy import load_file
        from scipy.sparse import csr_matrix

        vectors = TfidfVectors.load(folder)
        answers = json.loads((folder / ANSWERS_FILE).read_text(encoding="utf-8"))
        arrays = load_file(folder / QUESTIONS_FILE)
        shape = (len(answers), len(vectors.terms))
        questions = csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        return RetrievalPredictor(vectors, questions, tuple(answers))


def question(request: Request) -> str:
    """What a request asks: a bare text, or all that the user said in the conversation."""
    if isinstance(request, str):
        return request
    turns = cast(list[Message], request)
    return "\n".join(turn["content"] for turn in turns if turn["role"] == "user")
