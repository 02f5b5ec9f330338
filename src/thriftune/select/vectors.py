"""Texts as TF-IDF vectors of words and pairs of words, kept without pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Words, with what follows an apostrophe, and each punctuation mark: "!" and ":(" tell something. On three of Hutto's
# data sets this was as good as or better than scikit-learn's words of two letters and more.
TOKEN = r"(?u)\w+(?:'\w+)?|[^\w\s]"
TERMS = (1, 2)  # words and pairs of words
MANY_ROWS = 1_000  # from here on, terms of one row only are left out: a quarter of the size, as good
MAX_TERMS = 200_000  # the most frequent ones; bounds memory on large data
VOCABULARY_FILE = "vocabulary.json"
IDF_FILE = "idf.safetensors"


@dataclass(frozen=True)
class TfidfVectors:
    """A fitted transform: sublinear term frequency × inverse document frequency, of length 1.

    Args:
        terms: (terms,) in the order of columns.
        idf: (terms,) float64.
    """

    terms: tuple[str, ...]
    idf: NDArray[np.float64]

    @staticmethod
    def fit(texts: Sequence[str]) -> TfidfVectors:
        """Learn terms and their frequencies from texts, at least one of which is not blank."""
        rows = 2 if len(texts) >= MANY_ROWS else 1
        try:
            fitted = _vectorizer(min_df=rows).fit(texts)
        except ValueError:  # no term is in two rows
            fitted = _vectorizer(min_df=1).fit(texts)
        terms = sorted(fitted.vocabulary_, key=fitted.vocabulary_.__getitem__)
        return TfidfVectors(tuple(terms), np.asarray(fitted.idf_, dtype=np.float64))

    @cached_property
    def _transform(self) -> Any:
        vectorizer = _vectorizer(vocabulary={term: column for column, term in enumerate(self.terms)})
        vectorizer.idf_ = self.idf
        return vectorizer

    def of(self, texts: Sequence[str]) -> Any:
        """(texts, terms) sparse rows of length 1, or of zeros for a text without a known term."""
        return self._transform.transform(texts)

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` and `idf.safetensors` into a folder that is there."""
        from safetensors.numpy import save_file

        (folder / VOCABULARY_FILE).write_text(json.dumps(self.terms, ensure_ascii=False), encoding="utf-8")
        save_file({"idf": self.idf}, folder / IDF_FILE)

    @staticmethod
    def load(folder: Path) -> TfidfVectors:
        """What `save` wrote."""
        from safetensors.numpy import load_file

        terms = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
        return TfidfVectors(tuple(terms), load_file(folder / IDF_FILE)["idf"])


def _vectorizer(**settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if "vocabulary" not in settings:
        settings["max_features"] = MAX_TERMS
    return TfidfVectorizer(token_pattern=TOKEN, ngram_range=TERMS, sublinear_tf=True, dtype=np.float64, **settings)
