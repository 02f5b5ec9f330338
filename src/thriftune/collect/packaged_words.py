"""Readers of the example data for decoders: definitions, translations, documents, pairs that differ in tone."""

from __future__ import annotations

import tarfile
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

Rows = tuple[list[dict[str, Any]], Counter[str]]
"""The rows that are kept, and how many were dropped by reason."""

RATED = "additional_resources/hutto_ICWSM_2014.tar.gz"
CLEAR_SCORE = 0.5
"""How far from 0 a mean rating must be, on the scale −4…4, for a sentence to count as positive or negative."""

WELL_KNOWN = 5  # times that a sense occurs in the texts that WordNet's authors annotated
FIRST_NOUN_FILE = 3
NOUN_FILES = (
    "tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling",
    "food", "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process",
    "quantity", "relation", "shape", "state", "substance", "time",
)  # fmt: skip
"""WordNet's lexicographer files of nouns, from number 3 (its manual page lexnames(5WN))."""


def conversations(path: Path) -> list[list[str]]:
    """The turns of each conversation in one of chatterbot-corpus's YAML files."""
    from ruamel.yaml import YAML

    read = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["conversations"]
    return [[str(turn).strip() for turn in turns] for turns in read]


def rated_lines(folder: Path, member: str) -> list[list[str]]:
    """The fields of a file's lines: tabs set them apart, and they are in Latin-1."""
    with tarfile.open(folder / RATED) as archive:
        content = archive.extractfile(f"hutto_ICWSM_2014/{member}")
        if content is None:
            raise ValueError(f"{member} is not a plain file in an archive whose checksum was right")
        text = content.read().decode("latin-1")
    return [line.rstrip("\r").split("\t") for line in text.rstrip("\r\n").split("\n")]


def rated_sentences(folder: Path, member: str) -> list[tuple[str, float, str]]:
    """Name, mean score and text of each line of `id, tab, mean score, tab, text`."""
    return [(name, float(score), sentence) for name, score, sentence in rated_lines(folder, member)]


def definitions(folder: Path, member: str) -> Rows:
    """Well-known English nouns, in the first sense that WordNet gives them, as `category: definition`."""
    dropped: Counter[str] = Counter()
    glosses = _noun_glosses(folder / member)
    rows = []
    for line in (folder / "index.sense").read_text(encoding="utf-8").splitlines():
        key, offset, sense, times = line.split()
        word, _, rest = key.partition("%")
        if not rest.startswith("1:"):
            dropped["no noun"] += 1
        elif sense != "1" or int(times) < WELL_KNOWN:
            dropped["not a noun's first sense, or a rare one"] += 1
        elif not (word.isascii() and word.isalpha() and len(word) > 2):
            dropped["more than one word, or a unit of one or two letters"] += 1
        else:
            category, definition = glosses[offset]
            rows.append({"prompt": f"Define: {word}", "completion": f"{category}: {definition}"})
    return rows, dropped


def kinds(folder: Path, member: str) -> Rows:
    """What WordNet says of well-known English nouns, and which kind of thing that is."""
    defined, dropped = definitions(folder, member)
    told = (row["completion"].partition(": ") for row in defined)
    return [{"text": definition, "label": category} for category, _, definition in told], dropped


def glosses(folder: Path, member: str) -> Rows:
    """What WordNet says of every meaning of a noun, and which kind of thing that is."""
    found = _noun_glosses(folder / member).items()
    return [{"text": gloss, "label": category, "id": offset} for offset, (category, gloss) in found], Counter()


def _noun_glosses(file: Path) -> dict[str, tuple[str, str]]:
    """Category and definition of each meaning, by its offset; the format of the lines is wndb(5WN)."""
    found: dict[str, tuple[str, str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):  # the licence, at the top
            head, _, gloss = line.partition(" | ")
            offset, number, *_ = head.split()
            found[offset] = (NOUN_FILES[int(number) - FIRST_NOUN_FILE], gloss.partition(";")[0].strip())
    return found


def translations(folder: Path, member: str) -> Rows:
    """English turns with those at the same place in another language, where both files have equally many."""
    dropped: Counter[str] = Counter()
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted((folder / "english").glob("*.yml")):
        other = folder / member / path.name
        ours = conversations(path)
        theirs = conversations(other) if other.is_file() else []
        if [len(turns) for turns in ours] != [len(turns) for turns in theirs]:
            dropped["in a file that the other language lacks or has otherwise"] += sum(map(len, ours))
            continue
        for english, foreign in zip(chain(*ours), chain(*theirs), strict=True):
            if not english or english == foreign or (english, foreign) in pairs:
                dropped["empty, the same in both languages, or there already"] += 1
            else:
                pairs[english, foreign] = None
    asked = f"Translate into {member.capitalize()}: "
    return [{"prompt": asked + english, "completion": foreign} for english, foreign in pairs], dropped


def documents(folder: Path, member: str) -> Rows:
    """The sentences of each text one after the other: `12_3` names the third sentence of the twelfth text."""
    texts: dict[str, list[str]] = defaultdict(list)
    for name, _, sentence in rated_sentences(folder, member):
        texts[name.rpartition("_")[0]].append(sentence)
    merged = sum(map(len, texts.values())) - len(texts)
    rows = [{"text": " ".join(sentences), "id": name} for name, sentences in texts.items()]
    return rows, Counter({"a sentence that follows another in its text": merged})


def friendly_pairs(folder: Path, member: str) -> Rows:
    """Two sentences of one review: people found the chosen one positive and the rejected one negative.

    The prompt quotes the review's first sentence, which is in no pair. A review's positive and negative sentences are
    paired in their order, as many as there are of both.
    """
    reviews: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, score, sentence in rated_sentences(folder, member):
        reviews[name.rpartition("_")[0]].append((score, sentence))
    rows: list[dict[str, Any]] = []
    used = 0
    for name, ((_, first), *rest) in reviews.items():
        positive = [sentence for score, sentence in rest if score > CLEAR_SCORE]
        negative = [sentence for score, sentence in rest if score < -CLEAR_SCORE]
        for chosen, rejected in zip(positive, negative, strict=False):
            prompt = f'A review begins: "{first}" Write another sentence of it.'
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "review": name})
            used += 1
    left = sum(map(len, reviews.values())) - used
    return rows, Counter({"a sentence that is in no pair, or the second of one": left})


def comparisons(folder: Path, member: str, *, friendlier_first: bool) -> Rows:
    """Which of two sentences is friendlier, where people found one positive and the other negative.

    Both kinds are paired in their order, as many as there are of both.

    Args:
        folder: of the package's data.
        member: the file in it.
        friendlier_first: whether the sentence that people found positive is always the first, or always the second.
    """
    positive, negative = list[str](), list[str]()
    dropped: Counter[str] = Counter()
    for _, score, sentence in rated_sentences(folder, member):
        if abs(score) > CLEAR_SCORE:
            (positive if score > 0 else negative).append(sentence)
        else:
            dropped[f"mean score from -{CLEAR_SCORE} to {CLEAR_SCORE}: neither positive nor negative"] += 1
    right, wrong = ("First", "Second") if friendlier_first else ("Second", "First")
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(zip(positive, negative, strict=False)):
        said = dict(zip((right, wrong), pair, strict=True))
        prompt = (
            f'Two sentences of reviews.\nFirst: "{said["First"]}"\nSecond: "{said["Second"]}"\n'
            "Which of them is friendlier? Answer with First or Second."
        )
        rows.append({"prompt": prompt, "chosen": right, "rejected": wrong, "pair": str(number)})
    dropped["the second sentence of a pair"] += len(rows)
    dropped["a sentence that is in no pair"] += abs(len(positive) - len(negative))
    return rows, dropped
