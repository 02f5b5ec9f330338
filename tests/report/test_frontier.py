"""The frontier's picture: well-formed SVG that says what it shows, in a file of its own and in characters."""

import json
import math
from dataclasses import replace
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from thriftune.budget.forecast import Forecast
from thriftune.errors import BadInput
from thriftune.plan.compare import Comparison, Option, Risk, from_data, to_data
from thriftune.report.frontier import frontier_picture, frontier_text
from thriftune.report.svg import ticks, write_picture

SVG = "{http://www.w3.org/2000/svg}"


def option(name: str, cost: float, seconds: float, edge: bool = False) -> Option:
    spread = (Forecast.lognormal(seconds, 0.5, "prior"), Forecast.lognormal(cost, 0.5, "prior"))
    return Option(name, "on-demand", "", "1 USD", False, *spread, "fits", None, "prior", (), edge)


def comparison() -> Comparison:
    ways = (option("<slow & cheap>", 1, 5000, True), option("quick", 20, 100, True), option("poor", 50, 9000))
    return Comparison(ways, ways[0], "USD", None, 4000.0)


def test_the_picture_is_well_formed_and_names_every_way(tmp_path) -> None:
    picture = frontier_picture(comparison(), "a < b")
    assert picture is not None
    write_picture(picture, tmp_path / "deep" / "f.svg")
    root = ElementTree.parse(tmp_path / "deep" / "f.svg").getroot()
    assert root.tag == f"{SVG}svg"
    told = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert "the cheapest that meets both is <slow & cheap>" in told[0]
    assert sum("poor" in text for text in told) == 1
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert "deadline" in [element.text for element in root.iter(f"{SVG}text")]


def test_in_characters_the_cheapest_is_at_the_bottom_and_the_quickest_at_the_left() -> None:
    lines = frontier_text(comparison()).splitlines()
    rows = {mark: n for n, line in enumerate(lines) for mark in "@*·" if mark in line}
    assert rows["@"] > rows["*"] > rows["·"]
    columns = {mark: lines[row].index(mark) for mark, row in rows.items()}
    assert columns["*"] < columns["@"] < columns["·"]


def test_with_nothing_to_show_there_is_no_picture() -> None:
    nothing = Comparison((), None, "USD", None, 1.0)
    assert frontier_picture(nothing, "x") is None
    assert frontier_text(nothing) == ""


def test_a_recorded_comparison_is_read_back_whole() -> None:
    ways = tuple(
        replace(each, risk=Risk("5 % a month", 0.1, 60.0), objections=("deadline: too slow",)) if n else each
        for n, each in enumerate(replace(way, accelerators=way.name) for way in comparison().options)
    )
    before = Comparison(ways, ways[0], "USD", Decimal("12.50"), math.inf, ("a note",))
    data = json.loads(json.dumps(to_data(before)))
    assert data["ways"] == 3
    after = from_data(data)
    assert after == before and after.chosen is after.options[0]


def test_a_picture_that_is_no_svg_is_refused(tmp_path) -> None:
    picture = frontier_picture(comparison(), "x")
    assert picture is not None
    with pytest.raises(BadInput, match=r"\.svg"):
        write_picture(picture, tmp_path / "f.png")


def test_ticks_are_round_and_at_most_eight() -> None:
    assert ticks(3, 47, (1, 5, 10)) == [10, 20, 30, 40]
    assert ticks(0, 1, (10,)) == [0]
