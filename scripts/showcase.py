#!/usr/bin/env python
"""Puts a real run into the README: `scripts/showcase.py PROJECT_FOLDER`, after a run of it has ended.

The excerpt between `<!-- excerpt -->` and `<!-- /excerpt -->` is what `thriftune report` prints, up to its data ledger,
and `docs/images/report.png` is the top of its page in Chromium. Nothing is edited: for a better showing, make a better
run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "report.png"
LARGEST_BYTES = 300_000
WIDTH, HEIGHT = 1100, 1450  # of the picture, in pixels
COLUMNS = 80
LAST_SHOWN = "Data"  # the section at which the excerpt ends
EXCERPT = re.compile(r"<!-- excerpt -->.*?<!-- /excerpt -->", re.DOTALL)


def main() -> int:
    """Take excerpt and picture; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the project file")
    project = parser.parse_args().folder / "thriftune.yaml"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        told = report_of(project, page)
        take_picture(page)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    block = f"<!-- excerpt -->\n```text\n{told}\n```\n<!-- /excerpt -->"
    readme.write_text(EXCERPT.sub(lambda _: block, text), encoding="utf-8")
    return 0


def report_of(project: Path, page: Path) -> str:
    """What the report prints, up to the data ledger; the page is written to `page`."""
    command = [sys.executable, "-c", "from thriftune.cli.main import main; main()", "report", str(project)]
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        [*command, "--html", str(page)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    end = lines.index(LAST_SHOWN) if LAST_SHOWN in lines else len(lines)
    return "\n".join(lines[:end]).strip()


def take_picture(page: Path) -> None:
    """The top of the page as PNG."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        view.wait_for_load_state("networkidle")
        view.wait_for_timeout(1000)  # milliseconds: the charts draw themselves
        view.screenshot(path=PICTURE)
        browser.close()
    if PICTURE.stat().st_size > LARGEST_BYTES:
        raise SystemExit(f"{PICTURE.name} has {PICTURE.stat().st_size:,} bytes, more than {LARGEST_BYTES:,}")


if __name__ == "__main__":
    sys.exit(main())
