"""Unicode repair: text that was decoded wrongly, control characters, and one form for each character (NFC)."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from thriftune.prepare.types import CleaningStep

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

SUSPECT = r"[^\t\n -~]"  # printable ASCII needs no repair
_suspicious = re.compile(SUSPECT).search


def clean(text: str) -> str:
    """The text repaired by ftfy: mojibake, control characters and escapes, lone surrogates, line ends, NFC.

    Style stays: typographic quotes, ligatures and full-width characters are not rewritten, and entities are another
    step. Source: ftfy (Robyn Speer), https://ftfy.readthedocs.io.
    """
    if not _suspicious(text):
        return text
    from ftfy import fix_text

    return str(fix_text(text, _config()))


@cache
def _config() -> TextFixerConfig:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        normalization="NFC",
        explain=False,
    )


STEP = CleaningStep("repair", clean, SUSPECT)
