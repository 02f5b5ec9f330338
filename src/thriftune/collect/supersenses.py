"""Sentences in which a verb is marked with what kind of thing it says, out of WordNet's own examples.

WordNet (Miller, "WordNet: A Lexical Database for English", Communications of the ACM 38, 1995) gives many meanings of
verbs with sentences that show them, and files each meaning under one of fifteen headings, such as motion or cognition.
To find the verb and its heading in a sentence is supersense tagging (Ciaramita and Altun, EMNLP 2006), for verbs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thriftune.metrics.tagging import OUTSIDE

# The files of verbs in lexnames(5WN), from number 29 on.
HEADINGS = ("body", "change", "cognition", "communication", "competition", "consumption", "contact", "creation",
            "emotion", "motion", "perception", "possession", "social", "stative", "weather")  # fmt: skip
FIRST_HEADING = 29
FEWEST_WORDS = 4  # shorter examples are hardly sentences

_EXAMPLE = re.compile(r'"([^"]+)"')
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_VOWELS = "aeiou"


def marked_sentences(file: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The examples of `data.verb` in which one of their meaning's verbs is found, and why the others are left out.

    Returns:
        rows of `tokens` and `tags`, in the order of the file, each sentence once; and counts by reason.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    dropped: Counter[str] = Counter()
    for heading, verbs, sentence in _examples(file):
        words = _WORD.findall(sentence)
        if len(words) < FEWEST_WORDS:
            dropped[f"fewer than {FEWEST_WORDS} words"] += 1
            continue
        tags = _tags(words, verbs, heading)
        if tags.count(OUTSIDE) == len(tags):
            dropped["the verb is not there in a regular form"] += 1
        elif (known := found.get(tuple(words))) is not None:
            found[tuple(words)] = [old if old != OUTSIDE else new for old, new in zip(known, tags, strict=True)]
            dropped["a sentence that is there already: its verbs are marked in one"] += 1
        else:
            found[tuple(words)] = tags
    return [{"tokens": list(words), "tags": tags} for words, tags in found.items()], dropped


def _examples(file: Path) -> Iterator[tuple[str, list[str], str]]:
    """Heading, verbs and sentence of each example; the format of the lines is wndb(5WN)."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        _, heading, _, count, *rest = fields.split(" ")
        verbs = [word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
        for sentence in _EXAMPLE.findall(gloss):
            yield HEADINGS[int(heading) - FIRST_HEADING], verbs, sentence.strip()


def _tags(words: list[str], verbs: list[str], heading: str) -> list[str]:
    tags = [OUTSIDE] * len(words)
    lower = [word.lower() for word in words]
    for verb in sorted(verbs, key=len, reverse=True):  # the longest first: "take off" before "take"
        head, *others = verb.lower().split()
        forms = regular_forms(head)
        for place, word in enumerate(lower):
            end = place + 1 + len(others)
            if word in forms and lower[place + 1 : end] == others and set(tags[place:end]) == {OUTSIDE}:
                tags[place:end] = [f"B-{heading}"] + [f"I-{heading}"] * len(others)
    return tags


def regular_forms(verb: str) -> set[str]:
    """The forms of a verb that rules make.

    >>> sorted(regular_forms("stop"))
    ['stop', 'stoped', 'stoping', 'stopped', 'stopping', 'stops']
    """
    if verb.endswith("e"):
        return {verb, verb + "s", verb + "d", verb[:-1] + "ing"}
    if verb.endswith("y") and verb[-2:-1] not in _VOWELS:
        return {verb, verb[:-1] + "ies", verb[:-1] + "ied", verb + "ing"}
    plural = verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")
    forms = {verb, plural, verb + "ed", verb + "ing"}
    if len(verb) > 2 and verb[-1] not in _VOWELS + "wxy" and verb[-2] in _VOWELS and verb[-3] not in _VOWELS:
        forms |= {verb + verb[-1] + "ed", verb + verb[-1] + "ing"}
    return forms
