"""Exact match, BLEU, chrF, ROUGE and perplexity of generated answers, one reference an answer, all but perplexity 0…1.

- `exact_match`: equal after Unicode NFC, case folding, and runs of whitespace made one space and trimmed.
- `bleu`: sacrebleu's corpus BLEU with its defaults (13a tokens, four orders, exponential smoothing).
- `chrf`: sacrebleu's corpus chrF2 with its defaults (six character orders, no words, whitespace left out).
- `rouge1`, `rouge2`, `rougeL`: mean F1 over rows (Lin, 2004), as rouge-score has it without stemming. The tests hold
  ours to it on English text; it is not called, since it imports NLTK, which takes seconds of a metered machine, and
  since its tokenizer keeps the letters a–z only, which makes every Persian or Ukrainian answer score 0. Ours keeps
  the letters and digits of every script.
- `squad_exact`, `squad_f1`: equal, and mean F1 over the words that both have, after SQuAD's normalisation (Rajpurkar
  et al., EMNLP 2016, section 6; the official script's): lower case, no ASCII punctuation, no English articles. As in
  its version 2.0, two answers of which nothing is left are equal.
- `perplexity`: e to the mean negative log-likelihood a token, over all counted tokens.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thriftune.metrics.statistics import Statistics, Weights, summed

BLEU_ORDERS = 4
CHRF_ORDERS = 6
CHRF_BETA = 2  # recall counts twice as much as precision: Popović, "chrF deconstructed", WMT 2016
ROUGE = ("rouge1", "rouge2", "rougeL")
SQUAD = ("squad_exact", "squad_f1")
_WORD = re.compile(r"[^\W_]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_EXACT, _ROUGE = 0, slice(1, 4)
_BLEU_LENGTHS, _BLEU_HITS, _BLEU_TOTALS = slice(4, 6), slice(6, 10), slice(10, 14)
_CHRF_GIVEN, _CHRF_WANTED, _CHRF_HITS = slice(14, 20), slice(20, 26), slice(26, 32)
_SQUAD = slice(32, 34)
_COLUMNS = 34


def scores(targets: Sequence[str], outputs: Sequence[str]) -> dict[str, float]:
    """Every metric that compares an answer with its reference.

    Args:
        targets: (rows,) the reference answers.
        outputs: (rows,) the generated ones.

    Returns:
        exact_match, bleu, chrf, rouge1, rouge2, rougeL, squad_exact and squad_f1, each 0…1.

    >>> scores(["a b c d"], ["A  b c d"])["exact_match"]
    1.0
    """
    return answer_statistics(targets, outputs).values()


def answer_statistics(targets: Sequence[str], outputs: Sequence[str]) -> Statistics:
    """The metrics of answers, ready to be resampled."""
    from sacrebleu.metrics import BLEU

    # Effective order changes sentence scores only (and stops a warning about them); we take the counts.
    bleu = BLEU(effective_order=True)
    table = np.zeros((len(targets), _COLUMNS))
    for row, target, output in zip(table, targets, outputs, strict=True):
        row[_EXACT] = normalise(target) == normalise(output)
        row[_ROUGE] = _rouge(_WORD.findall(target.lower()), _WORD.findall(output.lower()))
        counts = bleu.sentence_score(output, [target])
        row[_BLEU_LENGTHS] = counts.sys_len, counts.ref_len
        row[_BLEU_HITS], row[_BLEU_TOTALS] = counts.counts, counts.totals
        row[_SQUAD] = squad_equal(target, output), _squad_f1(squad_words(target), squad_words(output))
        row[_CHRF_GIVEN], row[_CHRF_WANTED], row[_CHRF_HITS] = _character_matches(target, output)
    # The last column counts rows, for the metrics that are means over rows.
    return summed(np.column_stack([table, np.ones(len(table))]), _measure_answers)


def likelihood_statistics(losses: NDArray[np.float64], tokens: NDArray[np.float64]) -> Statistics:
    """`perplexity`, ready to be resampled.

    Args:
        losses: (rows,) negative log-likelihood (natural logarithm) summed over each row's counted tokens.
        tokens: (rows,) how many tokens each row counts.
    """

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return {"perplexity": np.exp(sums[:, 0] / sums[:, 1])}

    return summed(np.column_stack([losses, tokens]), measure)


def text_statistics(
    losses: NDArray[np.float64], tokens: NDArray[np.float64], characters: NDArray[np.float64]
) -> Statistics:
    """`perplexity` and `bits_per_character` of texts, ready to be resampled.

    The bits it takes to tell a character compare models with different tokenizers, which perplexity does not.

    Args:
        losses: (rows,) negative log-likelihood (natural logarithm) summed over each text's tokens.
        tokens: (rows,) how many tokens each text has.
        characters: (rows,) how many characters.
    """

    def measure(sums: Weights) -> dict[str, NDArray[np.float64]]:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            bits = sums[:, 0] / (np.log(2) * sums[:, 2])
            return {"perplexity": np.exp(sums[:, 0] / sums[:, 1]), "bits_per_character": bits}

    return summed(np.column_stack([losses, tokens, characters]), measure)


def normalise(text: str) -> str:
    """A text as `exact_match` compares it."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def squad_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them.

    >>> squad_words("The Andromeda Galaxy.")
    ['andromeda', 'galaxy']
    """
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def squad_equal(target: str, output: str) -> bool:
    """Whether two answers have the same words in the same order, as SQuAD compares them."""
    return squad_words(target) == squad_words(output)


def _squad_f1(wanted: list[str], given: list[str]) -> float:
    return _overlap(Counter(wanted), Counter(given)) if wanted or given else 1.0


def _rouge(wanted: list[str], given: list[str]) -> tuple[float, float, float]:
    common = _common_length(wanted, given)
    pairs = Counter(pairwise(wanted)), Counter(pairwise(given))
    return _overlap(Counter(wanted), Counter(given)), _overlap(*pairs), _f1(common, len(wanted), len(given))


def _overlap(wanted: Counter[Any], given: Counter[Any]) -> float:
    return _f1((wanted & given).total(), wanted.total(), given.total())


def _f1(common: int, wanted: int, given: int) -> float:
    return 2 * common / (wanted + given) if common else 0.0


def _common_length(wanted: list[str], given: list[str]) -> int:
    """Length of the longest common subsequence, a row of its table at a time."""
    lengths = [0] * (len(given) + 1)
    for word in wanted:
        corner = 0
        for column, other in enumerate(given, start=1):
            above = lengths[column]
            lengths[column] = corner + 1 if word == other else max(above, lengths[column - 1])
            corner = above
    return lengths[-1]


def _character_matches(target: str, output: str) -> tuple[list[int], list[int], list[int]]:
    wanted_text, given_text = "".join(target.split()), "".join(output.split())
    given_counts, wanted_counts, hits = [], [], []
    for order in range(1, CHRF_ORDERS + 1):
        wanted, given = _grams(wanted_text, order), _grams(given_text, order)
        # sacrebleu leaves an answer's n-grams out of the precision where the reference has none of that length.
        given_counts.append(given.total() if wanted else 0)
        wanted_counts.append(wanted.total())
        hits.append((wanted & given).total())
    return given_counts, wanted_counts, hits


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _measure_answers(sums: Weights) -> dict[str, NDArray[np.float64]]:
    rows = np.where(sums[:, -1] > 0, sums[:, -1], 1)
    rouge = sums[:, _ROUGE] / rows[:, None]
    return {
        "exact_match": sums[:, _EXACT] / rows,
        "bleu": _bleu(sums[:, _BLEU_LENGTHS], sums[:, _BLEU_HITS], sums[:, _BLEU_TOTALS]),
        "chrf": _chrf(sums[:, _CHRF_GIVEN], sums[:, _CHRF_WANTED], sums[:, _CHRF_HITS]),
        **{name: rouge[:, i] for i, name in enumerate(ROUGE)},
        **{name: sums[:, _SQUAD][:, i] / rows for i, name in enumerate(SQUAD)},
    }


def _bleu(lengths: Weights, hits: Weights, totals: Weights) -> NDArray[np.float64]:
    # Papineni et al., 2002; the k-th order without a hit gets precision 1 / (2^k total) (NIST's mteval-v13a).
    scored = (totals > 0).all(axis=1) & (hits > 0).any(axis=1)
    given, wanted = lengths[:, 0], lengths[:, 1]
    smoothing = 2.0 ** np.cumsum(hits == 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(hits > 0, hits, 1 / smoothing) / totals
        brevity = np.where(given < wanted, np.exp(1 - wanted / given), 1.0)
        return np.where(scored, brevity * np.exp(np.log(precisions).mean(axis=1)), 0.0)


def _chrf(given: Weights, wanted: Weights, hits: Weights) -> NDArray[np.float64]:
    usable = (given > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(axis=1), 1)
    precision = np.where(usable, hits / np.where(usable, given, 1), 0).sum(axis=1) / orders
    recall = np.where(usable, hits / np.where(usable, wanted, 1), 0).sum(axis=1) / orders
    weighted = CHRF_BETA**2 * precision + recall
    return np.asarray((1 + CHRF_BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1))
