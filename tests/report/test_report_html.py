import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from recorded_run import Recorder, Story, record

from thriftune.errors import BadInput
from thriftune.report.figures import figures
from thriftune.report.html import report_path, to_html, write_html
from thriftune.report.load import load_report
from thriftune.report.model import Breach, TrainingStep, Warned
from thriftune.report.plotting import MAX_POINTS, running_mean, thinned
from thriftune.store import open_store

EVIL = "<script>alert(1)</script>&<img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Tags, ids and visible text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.ids, self.text, self.json = [], [], [], [], ""
        self._inside = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.ids.append(given.get("id"))
        self.links += [given[name] for name in ("src", "href") if name in given]
        self._inside = (tag, given.get("type"))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == ("script", "application/json"):
            self.json += data
        elif self._inside is None or self._inside[0] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(report):
    return Page(to_html(report))


def test_the_page_is_whole_and_links_to_nothing_outside_itself(report, page):
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.count("script") == 3
    head = unescape(to_html(report)[:3000])
    assert "default-src 'none'" in head
    assert "unsafe-eval" not in head


def test_the_verdict_and_the_evidence_stand_first(page):
    assert page.words.index("Ship it.") < page.words.index("Is it better?")
    assert "F1 (macro) 0.838 (0.812 to 0.862) on 315 held-out rows" in page.words
    assert "the target of 0.82 is reached" in page.words


def test_every_chart_has_its_place_its_words_and_its_numbers(report, page):
    charts = json.loads(page.json)
    assert set(charts) == {"scores", "gains", "spending", "timeline", "forecast", "loss", "metric", "rate"}
    assert all(f"plot-{name}" in page.ids for name in charts)
    for figure in figures(report).values():
        assert figure.alt.endswith(".")
        assert all(len(row) == len(figure.headers) for row in figure.rows)
    assert "re-fitted at step 100 to 160 steps" in figures(report)["rate"].alt


def test_text_from_users_never_becomes_markup(report):
    evil = replace(
        report,
        project=replace(report.project, name=EVIL, model=EVIL),
        verdict=replace(report.verdict, reasons=(EVIL,)),
        tuned=replace(report.tuned, by_class={EVIL: {"f1": 0.5}}),
        baselines=tuple(replace(scores, predictor=EVIL) for scores in report.baselines),
        comparisons=tuple(replace(comparison, baseline=EVIL) for comparison in report.comparisons),
        data_ledger=tuple(replace(step, step=EVIL, dropped={EVIL: 3}, notes=EVIL) for step in report.data_ledger),
        decisions=tuple(replace(d, what=EVIL, chosen={EVIL: [EVIL]}, because=EVIL) for d in report.decisions),
        breaches=(Breach(EVIL, 1.0, 2.0, EVIL),),
        warnings=(Warned(EVIL, EVIL),),
        environment=replace(report.environment, machine={EVIL: EVIL}, recipe=EVIL),
    )
    page = Page(to_html(evil))
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert "alert(1)" in page.words
    assert "<" not in page.json
    # Plotly reads some markup in its labels, so it must get entities.
    assert not any("<" in text for text in _texts(json.loads(page.json)))


def _texts(value):
    """Every text of a figure that Plotly shows, its own hover templates apart."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "hovertemplate":
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def test_what_was_not_measured_is_said_to_be_so(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    recorder = Recorder(store, Story(worth=False))
    recorder.collect()
    recorder.finish("refused", 3, "the budget does not hold it; at least $0.60")
    page = Page(to_html(load_report(store, recorder.story.summary())))
    assert "Refused before it started." in page.words
    assert "at least $0.60" in page.words
    assert page.words.count("not measured") >= 3
    assert "Not measured: no training step was recorded." in page.words
    assert set(json.loads(page.json)) == {"spending", "timeline"}


def test_breaches_are_shown_with_their_cause(tmp_path):
    store, story = record(tmp_path, Story(breach=True, steps=100))
    page = Page(to_html(load_report(store, story.summary())))
    assert "breaches" in page.ids
    assert "training: steps took 7.5 s where at most 2.0 s was reserved" in page.words


def test_the_page_is_written_whole_or_not_at_all(report, tmp_path):
    path = write_html(report, report_path(tmp_path, report.attempt))
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [each.name for each in path.parent.iterdir()] == ["attempt-1.html"]
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(BadInput) as error:
        write_html(report, blocked / "report.html")
    assert error.value.where.endswith("report.html")
    assert error.value.way_out


def test_long_curves_are_thinned_to_their_ends():
    steps = [TrainingStep(n, 5000, 1.0, 0.5, 1e-4, 10, 12, 0.1) for n in range(1, 5001)]
    kept = thinned(steps)
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (steps[0], steps[-1])


def test_the_running_mean_of_a_constant_is_that_constant():
    assert running_mean([2.0] * 30) == pytest.approx([2.0] * 30)


def test_colours_have_contrast_in_both_themes():
    from thriftune.report.html import TEMPLATES

    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in style.split("@media", 2)[:2])
    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("page", "card")]
    for theme in (light, dark):
        for text, ground in pairs:
            assert _contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        for tone in ("good", "warn", "bad"):
            assert _contrast(theme[tone], theme[f"{tone}-page"]) >= 4.5, tone
            assert _contrast(theme["muted"], theme[f"{tone}-page"]) >= 4.5, tone


def _contrast(one, other):
    """WCAG 2.2, success criterion 1.4.3."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
