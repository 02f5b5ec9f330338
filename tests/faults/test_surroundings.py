"""What a run stands on gives way: the disk is full, the database is restarted, the clock is set back, a price is gone.

Nothing is lost, nothing is charged twice, and one message tells what to do.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_killed_runs import assert_the_books_are_right, finish

from line_for_tests import CLASSIFY, Line, classifier
from models_for_tests import bert_folder

DISK_BYTES = 700_000  # holds the database of a run's beginning, not what it makes
AHEAD_SECONDS = 7200
CLOCK = """
import os, time
_real = time.time
time.time = lambda: _real() + float(os.environ.get("TEST_CLOCK_AHEAD", "0"))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with little room, where this user may mount one; else the folder, and files may not grow."""
    place = tmp_path / "films" / ".thriftune"
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], capture_output=True, check=False
    )
    yield place
    if mounted.returncode == 0:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def is_mounted(place: Path) -> bool:
    return place.stat().st_dev != place.parent.stat().st_dev


def limited(words: list[str]) -> list[str]:
    """A command under which no file grows beyond half the disk: a write fails as on a full one."""
    return ["sh", "-c", f'ulimit -f {DISK_BYTES // 1024}; exec "$@"', "sh", *words]


def test_a_full_disk_ends_a_run_with_a_message_and_the_next_goes_on(
    tmp_path: Path, model: Path, home: Path, small_disk: Path
) -> None:
    apart = classifier(tmp_path / "made", model, home)
    for made in apart.folder.iterdir():
        made.rename(tmp_path / "films" / made.name)
    line = Line(tmp_path / "films", home)
    began = time.monotonic()
    words = line.command("run") if is_mounted(small_disk) else limited(line.command("run"))
    ended = subprocess.run(
        words, cwd=line.folder, env=line.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2, (ended.returncode, ended.stdout[-500:], ended.stderr[-3000:])
    assert "Traceback" not in ended.stderr and "way out" in ended.stderr
    assert "room" in ended.stderr or "space" in ended.stderr, ended.stderr
    if is_mounted(small_disk):
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    finish(line)
    assert_the_books_are_right(line, time.monotonic() - began, 2)
    assert line.leftovers() == []
    assert line.rows("SELECT max(attempt) FROM attempts") == [(1,)]


def test_a_database_that_is_restarted_in_the_middle_loses_and_doubles_nothing(
    tmp_path: Path, model: Path, home: Path, fresh_postgres_url: str, postgres_server
) -> None:
    line = classifier(tmp_path / "films", model, home, database=fresh_postgres_url, epochs=100)
    began, starts = time.monotonic(), 1
    process = line.start("run")
    for count in (1, 4):
        line.wait_for("training.step", count)
        postgres_server.restart()
    _, complaint = process.communicate(timeout=120)
    if process.returncode != 0:  # it was in the middle of a transaction
        assert process.returncode == 2 and "server" in complaint and "run again" in complaint, complaint
        assert "Traceback" not in complaint
        starts += 1
        finish(line)
    assert_the_books_are_right(line, time.monotonic() - began, starts)
    steps = [event["step"] for event in line.events("training.step")]
    assert sorted(set(steps)) == list(range(1, max(steps) + 1))
    assert line.events("evaluation.comparison")


def test_a_clock_that_is_set_back_between_runs_and_a_price_that_is_gone_cost_nothing_twice(
    tmp_path: Path, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CLASSIFY.replace("compute: {{price_per_hour: 3.6}}", "compute: {{machine: 'lab:box'}}")
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "clock"), prepend=":")
    line = classifier(tmp_path / "films", model, home, text)
    assert line.do("prices", "set", "lab:box", "3.6").returncode == 0
    began = time.monotonic()
    killed = line.do("run", THRIFTUNE_CRASH_AT="step.done:30", TEST_CLOCK_AHEAD=str(AHEAD_SECONDS))
    assert killed.returncode == -9, killed.stderr
    assert line.do("prices", "unset", "lab:box").returncode == 0
    before = line.rows("SELECT count(*) FROM events")
    refused = line.do("run")
    assert refused.returncode == 2 and "no price is known for this machine" in refused.stderr
    assert "lab:box" in refused.stderr and "price_per_hour" in refused.stderr and "Traceback" not in refused.stderr
    assert line.rows("SELECT count(*) FROM events") == before
    assert line.do("prices", "set", "lab:box", "3.6").returncode == 0
    finish(line)
    assert_the_books_are_right(line, time.monotonic() - began, 2)
    assert line.rows("SELECT max(attempt) FROM attempts") == [(1,)]


def test_an_old_price_is_a_warning_that_the_report_shows_with_its_age(tmp_path: Path, model: Path, home: Path) -> None:
    text = CLASSIFY.replace("compute: {{price_per_hour: 3.6}}", "compute: {{machine: 'lab:old'}}")
    line = classifier(tmp_path / "films", model, home, text)
    header = "provider,machine,accelerator,accelerator_count,region,market,price_per_hour,currency,source,as_of"
    (tmp_path / "prices.csv").write_text(f"{header}\nlab,old,,0,,on-demand,3.6,USD,our own,2020-01-01\n")
    taken = line.do("prices", "update", "--from", str(tmp_path / "prices.csv"))
    assert taken.returncode == 0, taken.stderr
    process = line.start("run")
    line.wait_for("warning")
    process.kill()
    process.communicate()
    (warning, *_) = line.events("warning")
    assert warning["where"] == "prices" and "days old" in warning["what"] and "2020-01-01" in warning["what"]
    assert "days old" in line.do("report").stdout
