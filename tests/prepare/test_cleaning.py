"""The steps that run in training and at serving: what they do, and that both paths do the same."""

from __future__ import annotations

import re

import polars as pl
import pytest
from frames import talks, texts
from hypothesis import given
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.prepare.serving import STEPS, clean_frame, serving_pipeline
from thriftune.prepare.steps import repair

NAMES = ["entities", "repair", "whitespace"]
clean = serving_pipeline(NAMES)

TELLING = st.sampled_from(
    ["&amp;", "&#39;", "&lt", "<", "â€™", "Ã©", "e\u0301", "\u200b", "\ufeff", "\x1b[31m", "\x85", "\r", "\n", " \n",
     "\u00a0", "\u2028", "\x07", "\t", "ﬁ", "ｆ", "“", "ÿþ", "\ufffd", " "]
)  # fmt: skip
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXT = st.lists(TELLING | PLAIN, max_size=8).map("".join)


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("schÃ¶n", "schön"),
        ("donâ€™t", "don’t"),
        ("cafe\u0301", "café"),
        ("red \x1b[31malert\x1b[0m\x07", "red alert"),
        ("fish &amp;amp; chips &#39;n&#39; peas", "fish & chips 'n' peas"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
        ("  one\u00a0two \r\n\r\n\r\n\r\nthree\t", "one two\n\nthree"),
        ("def f():\n    return  1", "def f():\n    return  1"),
        ("“curly” ﬁsh ｆｕｌｌ", "“curly” ﬁsh ｆｕｌｌ"),
        ("half \ud83d", "half \ufffd"),
        (" \n\t ", ""),
        ("", ""),
    ],
)
def test_text_is_repaired_and_its_style_kept(dirty: str, cleaned: str) -> None:
    assert clean(dirty) == cleaned


@given(st.lists(TEXT, min_size=1, max_size=5), st.sampled_from([NAMES, NAMES[1:], NAMES[:1], NAMES[2:]]))
def test_training_and_serving_read_the_same_bytes(dirty: list[str], names: list[str]) -> None:
    at_serving = [serving_pipeline(names)(text).encode() for text in dirty]
    in_texts, in_turns = texts([(text, text) for text in dirty]), talks([(text, text) for text in dirty])
    for name in names:
        in_texts, _ = clean_frame(in_texts, STEPS[name])
        in_turns, _ = clean_frame(in_turns, STEPS[name])
    turns = in_turns["messages"].list.get(0).struct.field("content")
    for column in (in_texts["text"], in_texts["target"], turns, in_turns["target"]):
        assert [text.encode() for text in column] == at_serving


@given(TEXT, st.sampled_from(sorted(STEPS)))
def test_what_a_step_does_not_suspect_it_would_not_change(text: str, name: str) -> None:
    step = STEPS[name]
    suspected = re.search(step.suspect, text) is not None
    assert pl.Series([text]).str.contains(step.suspect).item() == suspected, "polars and Python read it alike"
    if not suspected:
        assert step.clean(text) == text


@given(
    st.text(st.characters(min_codepoint=9, max_codepoint=126)).filter(lambda text: not re.search(repair.SUSPECT, text))
)
def test_plain_ascii_is_what_ftfy_leaves_alone(text: str) -> None:
    from ftfy import fix_text

    assert fix_text(text, repair._config()) == text


def test_changed_rows_are_counted_once() -> None:
    frame, changed = clean_frame(texts([(" a", "x "), ("b", "y"), ("c ", "z")]), STEPS["whitespace"])
    assert changed == 2
    assert frame.select("text", "target").rows() == [("a", "x"), ("b", "y"), ("c", "z")]
    _, changed = clean_frame(talks([(" a", "x "), ("b", "y"), ("c", "z ")]), STEPS["whitespace"])
    assert changed == 2


def test_a_step_of_another_version_is_an_error() -> None:
    with pytest.raises(BadInput) as caught:
        serving_pipeline(["repair", "translate"])
    assert caught.value.found == "translate"
