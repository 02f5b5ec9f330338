"""Handing alerts on: to a real command and a real web server; once each, whatever is killed meanwhile."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from thriftune.budget.alerts import CLAIM, Notifier, notified, sentence
from thriftune.clock import SystemClock
from thriftune.events import EventLog
from thriftune.money.amounts import to_nano
from thriftune.money.ledger import Ledger
from thriftune.store import Store, open_store

KEEP = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/thriftune.db")
    yield opened
    opened.close()


def spend(store: Store, amount: str, to: str | None) -> Notifier | None:
    """A process that spends money of a budget of 1.00 and ends."""
    clock = SystemClock()
    events = EventLog(store, clock, "films", 1)
    ledger = Ledger(store, clock, "films", events)
    ledger.open_budget(Decimal(1), "USD", {"training": Decimal(1)})
    notifier = notified(events, to)
    ledger.charge("training", "machine", to_nano(Decimal(amount)), "steps", 1.0)
    if notifier is not None:
        notifier.finish()
    return notifier


def kept(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def command(script: str, *arguments: object) -> str:
    words = (sys.executable, "-c", f'"{script}"', *arguments)
    return " ".join(map(str, words))


def test_a_command_is_given_each_alert_once(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "told"
    for _ in range(3):
        spend(store, "0.30", command(KEEP, file))
    told = {(each["scope"], each["level"]): each for each in kept(file)}
    assert len(told) == len(kept(file)) == 4  # 50 and 80 % of the total, and of training, which has all of it
    assert told["total", 50]["text"] == "films: 50 % of the budget spent: 0.60 USD of 1.00 USD"
    assert told["phase", 80]["text"] == "films: 80 % of the allowance for training spent: 0.90 USD of 1.00 USD"
    assert told["total", 50]["project"] == "films"


def test_what_a_killed_process_recorded_is_handed_on_by_the_next_and_what_it_claimed_is_not(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "told"
    spend(store, "0.60", None)  # it is killed before it claims anything
    spend(store, "0.01", command(KEEP, file))
    assert sorted(each["scope"] for each in kept(file)) == ["phase", "total"]
    events = EventLog(store, SystemClock(), "films", 1)
    first = events.read(kinds=["alert"])[0]
    spend(store, "0.30", None)
    unclaimed = [event for event in events.read(kinds=["alert"]) if event.data["level"] == 80]
    events.emit(CLAIM, alert=unclaimed[0].seq)  # it is killed between the claim and the command
    spend(store, "0.01", command(KEEP, file))
    assert [each["level"] for each in kept(file)].count(80) == 1
    assert first.seq in [event.data["alert"] for event in events.read(kinds=[CLAIM])]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (command("import sys; sys.exit('no such room')"), "no such room"),
        ("/no/such/command", "No such file"),
        ('one "quote', "quot"),
        ("http://127.0.0.1:1/secret", "ConnectError"),
    ],
)
def test_a_notifier_that_fails_is_a_warning(store: Store, to: str, said: str) -> None:
    spend(store, "0.60", to)
    warnings = EventLog(store, SystemClock(), "films", 1).read(kinds=["warning"])
    assert len(warnings) == 2 and all(event.data["where"] == "budget.notify" for event in warnings)
    assert all(said in event.data["what"] and "50 %" in event.data["what"] for event in warnings)
    assert not any("secret" in event.data["what"] for event in warnings)


class Room(BaseHTTPRequestHandler):
    """A web server that keeps what it is told, and says no to the second."""

    told: list[dict]

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200 if len(self.told) == 1 else 503)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_an_address_is_posted_to(store: Store) -> None:
    Room.told = []
    server = HTTPServer(("127.0.0.1", 0), Room)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        spend(store, "0.60", f"http://127.0.0.1:{server.server_port}/room")
    finally:
        server.shutdown()
        server.server_close()
    assert sorted(each["scope"] for each in Room.told) == ["phase", "total"]
    (warning,) = EventLog(store, SystemClock(), "films", 1).read(kinds=["warning"])
    assert "503" in warning.data["what"]


def test_a_kind_of_cost_is_named() -> None:
    data = {"scope": "category", "name": "labels", "level": 100, "spent": "3", "allowance": "3", "currency": "EUR"}
    assert sentence("films", data) == "films: 100 % of the allowance for labels spent: 3.00 EUR of 3.00 EUR"
