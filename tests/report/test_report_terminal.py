import io
from dataclasses import replace

import pytest
from rich.console import Console

from thriftune.report.terminal import show


def printed(report, width=100, terminal=False, **more):
    stream = io.StringIO()
    show(report, Console(file=stream, width=width, force_terminal=terminal, highlight=False), **more)
    return stream.getvalue()


def test_the_verdict_comes_first_and_the_way_on_last(report):
    text = printed(report, page="reports/attempt-1.html", serve="thriftune serve")
    lines = text.splitlines()
    assert lines[:2] == ["movie-sentiment, attempt 1", "Ship it."]
    assert lines[-2:] == ["Report: reports/attempt-1.html", "Serve it: thriftune serve"]
    for shown in ("TF-IDF", "+5.2 points (+2.1 to +8.3)", "$0.15 of $0.50", "paid back in", "5 of 7 inside"):
        assert shown in text


def test_without_a_terminal_it_is_plain_text(report):
    text = printed(report)
    assert "\x1b" not in text
    assert not set("│─╭╮╰╯━") & set(text)
    assert "\x1b" in printed(report, terminal=True)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_console(report, width):
    assert max(map(len, printed(report, width).splitlines())) <= width


def test_text_from_users_drives_neither_the_terminal_nor_the_markup(report):
    evil = replace(
        report,
        project=replace(report.project, name="a\x1b[2Jb"),
        verdict=replace(report.verdict, reasons=("[red]x[/red] \x1b]0;owned\x07",)),
    )
    text = printed(evil)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text
