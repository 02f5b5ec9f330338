from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftune.clock import ManualClock
from thriftune.events import (
    Event,
    EventLog,
    finish_attempt,
    latest_attempt,
    list_attempts,
    open_attempt,
    resume_attempt,
)
from thriftune.store import Store

plain = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(
    st.none() | st.booleans() | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def log(shared_store: Store, unused_name: str) -> EventLog:
    return EventLog(shared_store, ManualClock(), unused_name, 1)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.dictionaries(st.text(), json_values, max_size=4))
def test_an_event_is_read_as_it_was_written(log: EventLog, data: dict[str, Any]) -> None:
    received: list[Event] = []
    log._subscribers = [received.append]
    log.emit("decision", **data)
    read = log.read()[-1]
    assert read.data == data and read.kind == "decision" and read.at == ManualClock().now()
    assert received == [read]


def test_numbers_that_json_does_not_know_become_null(log: EventLog) -> None:
    log.emit("training.step", loss=math.nan, rates=[math.inf, 1.0], nested={"low": -math.inf})
    assert log.read()[0].data == {"loss": None, "rates": [None, 1.0], "nested": {"low": None}}


def test_names_of_files_that_are_no_unicode_are_recorded(log: EventLog, shared_store: Store) -> None:
    name = b"caf\xe9.csv\0".decode("utf-8", "surrogateescape")
    log.emit("data.entry", notes=name)
    assert log.read()[0].data == {"notes": name}
    open_attempt(shared_store, ManualClock(), log.project, "recipe")
    ended = finish_attempt(
        shared_store, ManualClock(), log.project, 1, outcome="failed", exit_code=2, message=f"no such file {name}"
    )
    assert ended.message == "no such file caf\\udce9.csv\\0"


def test_what_is_not_plain_json_is_refused_and_leaves_the_buffer(log: EventLog) -> None:
    log.buffer("training.step", step=1)
    with pytest.raises(TypeError):
        log.emit("decision", chosen=object())
    log.emit("decision", chosen=1)
    assert kinds(log.read()) == ["training.step", "decision"]


def test_reading_takes_the_part_that_is_asked_for(log: EventLog, shared_store: Store) -> None:
    later = EventLog(shared_store, ManualClock(), log.project, 2)
    for number in range(3):
        log.emit("training.step", step=number)
        later.emit("decision", what=f"{number}")
    assert [event.seq for event in log.read()] == [1, 2, 3, 4, 5, 6]
    assert kinds(log.read(attempt=2)) == ["decision"] * 3
    assert [event.data["step"] for event in log.read(kinds=["training.step"])] == [0, 1, 2]
    assert [event.seq for event in log.read(after=2, limit=2)] == [3, 4]
    assert log.read(kinds=[]) == []


def test_buffered_events_are_recorded_before_the_next_one_in_their_order(log: EventLog) -> None:
    received: list[Event] = []
    log.subscribe(received.append)
    for number in range(3):
        log.buffer("training.step", step=number)
    assert log.read() == received == []
    log.emit("training.validation", step=2)
    assert kinds(log.read()) == ["training.step"] * 3 + ["training.validation"]
    assert received == log.read()


def test_buffered_events_wait_for_a_second_at_most_and_not_beyond_the_end(log: EventLog) -> None:
    clock = log._clock
    assert isinstance(clock, ManualClock)
    log.buffer("training.step", step=0)
    clock.advance(0.9)
    log.buffer("training.step", step=1)
    assert log.read() == []
    clock.advance(0.1)
    log.buffer("training.step", step=2)
    assert [event.data["step"] for event in log.read()] == [0, 1, 2]
    assert [event.at - log.read()[0].at for event in log.read()] == pytest.approx([0, 0.9, 1.0])
    log.buffer("training.step", step=3)
    log.close()
    assert len(log.read()) == 4


def test_an_event_inside_a_transaction_is_handed_on_when_it_commits(log: EventLog, shared_store: Store) -> None:
    received: list[Event] = []
    log.subscribe(received.append)
    with shared_store.begin() as transaction:
        log.emit("charge", inside=transaction, amount="1")
        log.emit("breach", inside=transaction)
        assert received == []
    assert kinds(received) == ["charge", "breach"] == kinds(log.read())


def test_a_transaction_that_fails_takes_its_events_along_but_not_the_buffered_ones(
    log: EventLog, shared_store: Store
) -> None:
    received: list[Event] = []
    log.subscribe(received.append)
    log.buffer("training.step", step=0)

    def fail() -> None:
        with shared_store.begin() as transaction:
            log.emit("charge", inside=transaction)
            raise KeyError("of the test")

    with pytest.raises(KeyError):
        fail()
    assert log.read() == received == []
    log.flush()
    assert kinds(log.read()) == ["training.step"]


def test_a_subscriber_may_emit(log: EventLog) -> None:
    log.subscribe(lambda event: log.emit("decision") if event.kind == "breach" else None)
    log.emit("breach")
    assert kinds(log.read()) == ["breach", "decision"]


def test_many_writers_leave_no_gap_and_no_number_twice(log: EventLog, shared_store: Store) -> None:
    def write(attempt: int) -> None:
        mine = EventLog(shared_store, ManualClock(), log.project, attempt)
        for _ in range(15):
            mine.emit("decision")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.seq for event in log.read()] == list(range(1, 61))


def test_an_event_outlives_a_kill_right_after_it(log: EventLog, shared_url: str) -> None:
    program = (
        "import os, signal; from thriftune.clock import SystemClock; from thriftune.store import open_store;"
        "from thriftune.events import EventLog;"
        f"log = EventLog(open_store({shared_url!r}), SystemClock(), {log.project!r}, 1);"
        "log.buffer('training.step', step=1); log.emit('decision', chosen=4); log.buffer('training.step', step=2);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, env=os.environ).returncode == -signal.SIGKILL
    assert kinds(log.read()) == ["training.step", "decision"]


def test_an_attempt_is_opened_finished_and_taken_up_again(shared_store: Store, unused_name: str) -> None:
    clock = ManualClock()
    assert latest_attempt(shared_store, unused_name) is None
    first = open_attempt(shared_store, clock, unused_name, "a recipe")
    clock.advance(5)
    ended = finish_attempt(
        shared_store, clock, unused_name, first.attempt, outcome="interrupted", exit_code=130, message="Ctrl-C"
    )
    assert (ended.outcome, ended.exit_code, ended.message) == ("interrupted", 130, "Ctrl-C")
    assert ended.finished_at == first.started_at + 5
    assert resume_attempt(shared_store, unused_name, first.attempt) == first
    second = open_attempt(shared_store, clock, unused_name, "another recipe")
    assert [each.attempt for each in list_attempts(shared_store, unused_name)] == [1, 2]
    assert latest_attempt(shared_store, unused_name) == second
