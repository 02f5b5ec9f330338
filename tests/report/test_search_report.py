"""What a report says of a search: who won and why, what was left, which option matters, and what serving costs."""

import io
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from rich.console import Console

from thriftune.report.figures import figures
from thriftune.report.form import to_json
from thriftune.report.headline import search_sentence
from thriftune.report.html import to_html
from thriftune.report.model import Searched, Tried
from thriftune.report.search_figures import search_frontier
from thriftune.report.terminal import show

SMALL, LARGE = {"model": "small", "learning_rate": 0.001}, {"model": "large", "learning_rate": 0.0001}


@pytest.fixture
def searched(report):
    search = Searched(
        winner=SMALL,
        configurations=(
            Tried(LARGE, 0.82, 0.02, 6, 40.0, True, 1, 80e6, True),
            Tried(SMALL, 0.81, 0.02, 6, 20.0, True, 0, 10e6, True),
            Tried({"model": "large", "learning_rate": 0.01}, 0.55, 0.05, 1, 7.0, False, 2, 80e6, False),
        ),
        seconds=67.0,
        because="what is left of its 70 s holds no training",
        best=((20.0, 0.7), (67.0, 0.82)),
        chosen_because="it costs 12% of what the top score costs to serve",
        top=LARGE,
        saved_seconds=33.0,
        importance={"learning_rate": 0.8, "model": 0.2},
        nested=(0.80, 0.84),
    )
    return replace(report, search=search)


def test_the_sentence_says_why_the_winner_is_not_the_top_score_and_what_was_saved(searched):
    said = search_sentence(searched.search)
    for part in (
        "model small, learning_rate 0.001",
        "The best expected score has model large",
        "it costs 12% of what the top score costs",
        "1 were left before the end",
        "33 s more",
        "learning_rate 80%",
        "0.820 ± 0.020",
        "2 outer folds",
    ):
        assert part in said.replace("\xa0", " "), part
    alone = replace(searched.search, top=SMALL, nested=())
    assert "The best expected score has" not in search_sentence(alone)


def test_the_best_so_far_is_drawn_against_money_and_quality_against_serving(searched):
    price = searched.cost.price_per_hour
    drawn = figures(searched)
    spent = [float(Decimal(seconds) * price / 3600) for seconds in (20, 67)]
    assert drawn["search"].data[0]["x"] == pytest.approx(spent)
    line, dots = drawn["search-frontier"].data
    assert line["x"] == [10e6, 80e6]
    assert line["y"] == [0.81, 0.82]
    assert dots["x"] == [80e6, 10e6, 80e6]
    same = replace(searched.search, configurations=searched.search.configurations[::2])
    assert search_frontier(replace(searched, search=same)) is None


def test_page_terminal_and_json_have_it(searched):
    told = json.loads(json.dumps(to_json(searched), allow_nan=False))["search"]
    assert told["top"] == LARGE
    assert told["left"] == 1
    assert told["configurations"][1]["serving"] == 10e6
    assert Decimal(told["best_spent"][1]) == pytest.approx(
        67 * searched.cost.price_per_hour / 3600, abs=Decimal("1e-8")
    )
    page = to_html(searched)
    assert 'id="plot-search-frontier"' in page
    assert "10,000,000, on the frontier" in page
    stream = io.StringIO()
    show(searched, Console(file=stream, width=220, highlight=False))
    assert "80,000,000 (frontier)" in stream.getvalue()
    assert "outer folds" in stream.getvalue()
