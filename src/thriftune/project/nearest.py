"""The name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(wanted: str, names: Iterable[str]) -> str:
    """The name most like `wanted`, or an empty text where there is none."""
    return max(names, key=lambda name: SequenceMatcher(None, wanted.lower(), name.lower()).ratio(), default="")
