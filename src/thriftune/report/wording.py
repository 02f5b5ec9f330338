"""How figures are said: money, durations, shares, names; one wording for the terminal, the page and the progress."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from thriftune.options import CURRENCIES
from thriftune.report.model import Estimate, Tried

MISSING = "not measured"
SYMBOLS = {code: symbol for symbol, code in CURRENCIES.items()}
PERIOD_SECONDS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_629_746.0, "year": 31_556_952.0}

_BEFORE_UNIT = re.compile(r"(?<=[\d)]) (?=(?:%|s|min|h|d|points?|GiB|MiB)\b|%)|(?<=\d) (?=a point\b)")

METRICS = {
    "accuracy": "accuracy",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "precision_micro": "precision (micro)",
    "recall_micro": "recall (micro)",
    "f1_macro": "F1 (macro)",
    "f1_micro": "F1 (micro)",
    "f1_span": "F1 (spans)",
    "precision_span": "precision (spans)",
    "recall_span": "recall (spans)",
    "exact_match": "exact match",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "squad_exact": "exact match (SQuAD)",
    "squad_f1": "token F1 (SQuAD)",
    "perplexity": "perplexity",
    "bits_per_character": "bits per character",
    "preference_accuracy": "preference accuracy",
    "margin": "margin (nats)",
    "auroc": "AUROC",
    "ece": "calibration error",
}
PREDICTORS = {
    "tuned": "tuned model",
    "untuned": "untuned model",
    "majority": "majority class",
    "tfidf": "TF-IDF",
    "unigram": "each word's usual tag",
    "longer": "the longer answer",
    "previous": "previous release",
}


def metric_name(name: str | None) -> str:
    """A metric as a person says it."""
    return "the metric" if name is None else METRICS.get(name, plain(name))


def predictor_name(name: str) -> str:
    """A predictor as a person says it."""
    return PREDICTORS.get(name, plain(name))


def plain(text: str) -> str:
    """Text without control characters, which could drive a terminal."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text)


def as_text(value: Any) -> str:
    """Any recorded JSON value as one line for a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {as_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(as_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    words = {"None": "", "True": "yes", "False": "no"}
    return words.get(str(value), "") if value is None or isinstance(value, bool) else plain(str(value))


def chosen(what: str, value: Any) -> str:
    """What was decided, as a person says it: a deadline is an instant, everything else as it stands."""
    return instant(float(value)) if what == "deadline" and isinstance(value, int | float) else as_text(value)


def money(amount: Decimal | None, currency: str) -> str:
    """Money with its sign: cents as a rule, two figures of a smaller amount, whole units of a large one."""
    if amount is None:
        return MISSING
    digits = 0 if abs(amount) >= 1000 else 2
    if amount != 0 and abs(amount) < Decimal("0.10"):
        digits = min(9, 1 - amount.adjusted())
    text = f"{abs(amount):,.{digits}f}"
    if digits > 2:
        text = text.rstrip("0").ljust(len("0.00"), "0")
    sign = "−" if amount < 0 else ""
    return f"{sign}{SYMBOLS[currency]}{text}" if currency in SYMBOLS else f"{sign}{text} {currency}".strip()


def megabytes(number: int | None) -> str:
    """Bytes in megabytes."""
    return MISSING if number is None else f"{number / 1e6:,.1f} MB"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units: `4 min 05 s`."""
    if seconds is None:
        return MISSING
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return _whole_seconds(round(seconds))


def _whole_seconds(whole: int) -> str:
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86_400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def _two(large: int, unit: str, small: int, smaller_unit: str) -> str:
    return f"{large} {unit} {small:02d} {smaller_unit}" if small else f"{large} {unit}"


def share(value: float | None) -> str:
    """A share of one in per cent."""
    if value is None:
        return MISSING
    percent = 100 * value
    return f"{percent:.1f} %" if abs(percent) < 10 else f"{percent:.0f} %"


def signed_share(value: float | None) -> str:
    """A share with its sign: `+4.0 %`."""
    if value is None:
        return MISSING
    return ("+" if value >= 0 else "−") + share(abs(value))


def score(value: float | None) -> str:
    """A metric's value: three decimals on a 0…1 scale, fewer above."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def estimate(value: Estimate | None) -> str:
    """A value with its interval: `0.841 (0.815 to 0.866)`."""
    if value is None:
        return MISSING
    if value.low is None or value.high is None:
        return score(value.value)
    return f"{score(value.value)} ({score(value.low)} to {score(value.high)})"


def points(value: float | None) -> str:
    """Points with their sign: `+5.0`."""
    if value is None:
        return MISSING
    return f"{'+' if value >= 0 else '−'}{abs(value):.1f}"


def interval_of_points(value: float | None, low: float | None, high: float | None) -> str:
    """Points with their interval: `+5.0 points (+2.0 to +8.0)`."""
    if value is None:
        return MISSING
    unit = "point" if f"{abs(value):.1f}" == "1.0" else "points"
    return f"{points(value)} {unit} ({points(low)} to {points(high)})"


def times(ratio: float | None) -> str:
    """A ratio as a multiple, in at most three figures: `12×`, `119,000×`."""
    if ratio is None:
        return MISSING
    size = abs(ratio)
    digits = 0 if size >= 10 else 1 if size >= 1 else 2
    rounded = round(size, 2 - math.floor(math.log10(size))) if size >= 1000 else size
    return f"{'−' if ratio < 0 else ''}{rounded:,.{digits}f}×"


def class_figure(value: float | None) -> str:
    """A figure of one class: a share with three decimals, or a number of rows."""
    return MISSING if value is None else f"{value:,}" if isinstance(value, int) else score(value)


def small(value: float | None) -> str:
    """A number in three significant figures, however small."""
    return MISSING if value is None else f"{value:.3g}" if abs(value) >= 1e-3 else "under 0.001"


def spaced(name: str) -> str:
    """A program's name for something as words."""
    return plain(name).replace("_", " ")


def tight(text: str) -> str:
    """The text with its figures held to their units, so that no line breaks between them."""
    return _BEFORE_UNIT.sub("\u00a0", text)


def yes_no(value: bool | None) -> str:
    """A fact as a word."""
    return MISSING if value is None else "yes" if value else "no"


def count(number: int | None) -> str:
    """A whole number with its thousands set apart."""
    return MISSING if number is None else f"{number:,}"


def quantity(name: str, value: float | None, currency: str) -> str:
    """A forecast's value in its own unit: `time_s`, `cost`, `memory_bytes`, `tokens`."""
    if value is None:
        return MISSING
    if name == "time_s":
        return duration(value)
    if name == "cost":
        return money(Decimal(repr(value)), currency)
    if name == "memory_bytes":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    return f"{value:,.0f}"


def instant(seconds: float | None) -> str:
    """An instant as UTC date and time."""
    if seconds is None:
        return MISSING
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def periods(number: float | None, per: str) -> str:
    """A number of periods, as a duration where the period's length is known."""
    if number is None:
        return MISSING
    known = PERIOD_SECONDS.get(per.rstrip("s"))
    if known is not None and number < 2:
        return duration(number * known)
    return f"{number:,.1f} {per.rstrip('s')}s"


def expected_score(tried: Tried) -> str:
    """A configuration's expected score with its standard deviation."""
    return f"{tried.expected:.3f}" + ("" if tried.deviation is None else f" ± {tried.deviation:.3f}")
