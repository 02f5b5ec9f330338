"""HTML entities (`&amp;`, `&#39;`) become the characters they stand for."""

from __future__ import annotations

from thriftune.prepare.types import CleaningStep

SUSPECT = "&"


def clean(text: str) -> str:
    """The text without entities, however often they were escaped; text with a `<` is HTML, and stays as it is.

    Source: ftfy's rule and its table of entities, which leaves `&eacute` without a semicolon alone.
    """
    if "&" not in text or "<" in text:
        return text
    from ftfy.fixes import unescape_html

    while (unescaped := str(unescape_html(text))) != text:
        text = unescaped
    return text


STEP = CleaningStep("entities", clean, SUSPECT)
