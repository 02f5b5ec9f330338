"""Whitespace: one kind of blank and of line end, none at the ends, no more than one empty line."""

from __future__ import annotations

import re

from thriftune.prepare.types import CleaningStep

_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_BREAKS = "\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
SUSPECT = f"[{_BLANKS}{_BREAKS}]|[ \\t]\\n|\\n\\n\\n|^[ \\t\\n]|[ \\t\\n]$"

_blank = re.compile(f"[{_BLANKS}]")
_line_end = re.compile(f"[ \\t]*(?:\\r\\n|[\\n{_BREAKS}])")
_empty_lines = re.compile("\n{3,}")


def clean(text: str) -> str:
    """The text with plain blanks and line ends; blanks within and before a line stay, since in code they count."""
    text = _line_end.sub("\n", _blank.sub(" ", text))
    return _empty_lines.sub("\n\n", text).strip(" \t\n")


STEP = CleaningStep("whitespace", clean, SUSPECT)
