"""The report in a real browser: drawn, quiet, whole, and fit for a phone."""

import os
import shutil
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from recorded_run import Recorder, Story, record

from thriftune.budget.forecast import Forecast
from thriftune.clock import SystemClock
from thriftune.events import EventLog
from thriftune.plan.compare import Comparison, Option, to_data
from thriftune.report.html import write_html
from thriftune.report.load import load_report
from thriftune.report.model import Searched, Tried

SEARCHED = Searched(
    winner={"learning_rate": 0.001},
    configurations=(
        Tried({"learning_rate": 0.001}, 0.82, 0.02, 6, 40.0, True, 1, 80e6, True),
        Tried({"learning_rate": 0.003}, 0.81, 0.02, 6, 20.0, True, 0, 10e6, True),
    ),
    seconds=60.0,
    because="its limit",
    best=((20.0, 0.7), (60.0, 0.82)),
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHARTS = ("scores", "gains", "spending", "timeline", "forecast", "loss", "metric", "rate")
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("THRIFTUNE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("there is no Chromium on this machine: `make setup` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    store, story = record(folder, Story(breach=True, drop_reason=EVIL, because=EVIL))
    return write_html(load_report(store, story.summary()), folder / "report.html")


@pytest.fixture
def opened(browser):
    """Opens a page, and tells what it asked of the network and what it complained about."""
    pages = []

    def open_page(path, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.trouble, page.requests = [], []
        page.on("console", lambda message: page.trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.on("dialog", lambda dialog: (page.trouble.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn=yes]")
        return page

    yield open_page
    for page in pages:
        page.close()


def test_the_report_is_drawn_without_a_complaint_or_a_request(opened, page_file):
    page = opened(page_file)
    assert page.trouble == []
    assert page.requests == [page_file.as_uri()]
    assert page.locator("#verdict h2").is_visible()
    assert page.locator("#verdict h2").inner_text() == "Ship it."
    assert page.locator("#breaches").is_visible()
    for name in CHARTS:
        chart = page.locator(f"#plot-{name}")
        assert chart.locator("svg.main-svg").count() >= 1, name
        assert chart.locator(".trace").count() >= 1, name
        assert chart.get_attribute("aria-label"), name
    assert page.locator("#plot-gains .point").count() == 3


def test_the_frontiers_of_machines_and_of_search_are_drawn(opened, tmp_path):
    store, story = record(tmp_path, Story())
    ways = tuple(
        way(EVIL if number == 1 else f"cloud:m{number}", cost, seconds, edge)
        for number, (cost, seconds, edge) in enumerate([(1, 5000, True), (20, 100, True), (50, 9000, False)])
    )
    events = EventLog(store, SystemClock(), story.summary().name, 1)
    events.emit("plan.compared", **to_data(Comparison(ways, ways[0], "USD", Decimal(40), 6000.0)))
    events.close()
    report = replace(load_report(store, story.summary()), search=SEARCHED)
    store.close()
    page = opened(write_html(report, tmp_path / "report.html"))
    assert page.trouble == []
    machines = page.locator("#frontier svg")
    assert machines.is_visible() and machines.locator("circle").count() == 3
    assert "the cheapest that meets both is cloud:m0" in machines.get_attribute("aria-label")
    shown = machines.bounding_box()
    assert shown["width"] > 300 and shown["height"] > 150
    page.locator("#frontier summary").click()
    assert page.locator("#frontier tbody tr").count() == 3
    assert EVIL in page.locator("#frontier tbody").inner_text()
    search = page.locator("#plot-search-frontier")
    assert search.locator(".scatterlayer .trace").count() == 2 and search.is_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def way(name, cost, seconds, edge):
    spread = Forecast.lognormal(seconds, 0.5, "prior"), Forecast.lognormal(cost, 0.5, "prior")
    return Option(name, "on-demand", name, "1 USD", False, *spread, "fits", None, "prior", (), edge)


def test_text_from_users_is_shown_and_not_run(opened, page_file):
    page = opened(page_file)
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("#data").inner_text()
    assert page.trouble == []


def test_a_phone_has_no_horizontal_scroll(opened, page_file):
    page = opened(page_file, viewport={"width": 390, "height": 844})
    for width in (390, 320, 768):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function("width => document.querySelector('#plot-loss svg').clientWidth <= width", arg=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_have_their_own_colours_and_follow_a_change(opened, page_file):
    page = opened(page_file, color_scheme="light")

    def colours():
        return page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('#plot-loss .xtick text')).fill]"
        )

    light = colours()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    dark = colours()
    assert all(before != after for before, after in zip(light, dark, strict=True))


def test_the_numbers_behind_each_chart_can_be_opened_by_keyboard(opened, page_file):
    page = opened(page_file)
    summary = page.locator("#quality figure summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#quality figure table").first.is_visible()


def test_it_prints(opened, page_file, tmp_path):
    page = opened(page_file, color_scheme="dark")
    page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    assert page.trouble == []


def test_a_refused_run_has_a_page_too(opened, tmp_path):
    from thriftune.store import open_store

    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story())
    recorder.collect()
    recorder.finish("refused", 3, "at least a budget of $0.60 and a deadline of 300 s")
    page = opened(write_html(load_report(store, recorder.story.summary()), tmp_path / "report.html"))
    assert page.locator("#verdict h2").inner_text() == "Refused before it started."
    assert page.trouble == []
