"""The cheap tagger: each word's own most frequent tag, whatever stands around it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from thriftune.tasks.base import Prediction, Request
from thriftune.tasks.targets import read_list, write_tags

FILE = "unigram.json"


@dataclass(frozen=True)
class UnigramPredictor:
    """The unigram tagger of textbooks (Jurafsky and Martin, "Speech and Language Processing", section 17.2).

    Args:
        tags: by word, as it is written and in lower case, the tag that it most often has in training.
        otherwise: for words that training does not have: the tag of most words.
        name: as shown in reports.
    """

    tags: dict[str, str]
    otherwise: str
    name: str = "unigram"

    @staticmethod
    def fit(sentences: Sequence[Sequence[str]], targets: Sequence[str]) -> UnigramPredictor:
        """Count each word's tags; of equally frequent ones the first in the alphabet."""
        counts: dict[str, Counter[str]] = {}
        every: Counter[str] = Counter()
        for words, target in zip(sentences, targets, strict=True):
            for word, tag in zip(words, read_list(target), strict=True):
                every[tag] += 1
                for form in {word, word.lower()}:
                    counts.setdefault(form, Counter())[tag] += 1
        return UnigramPredictor({word: _most(tags) for word, tags in counts.items()}, _most(every))

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """A tag for each word."""
        sentences = [cast(list[str], request) for request in requests]
        return [Prediction(write_tags([self._tag(word) for word in words])) for words in sentences]

    def _tag(self, word: str) -> str:
        return self.tags.get(word) or self.tags.get(word.lower(), self.otherwise)

    def save(self, folder: Path) -> None:
        """Write `unigram.json` into a folder that is there."""
        about = {"tags": self.tags, "otherwise": self.otherwise}
        (folder / FILE).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> UnigramPredictor:
        """What `save` wrote."""
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return UnigramPredictor(about["tags"], about["otherwise"])


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))
