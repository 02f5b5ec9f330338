"""Handing alerts on: to a command, or to an address of the web.

The ledger records an alert in the transaction of the charge that gave rise to it. Here it is claimed by an event of
its own before it is handed on, so that a run that is killed and taken up again tells nobody twice; an alert that was
recorded and not claimed is handed on by the next process. A notifier that fails is a warning, never the end of a run.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from decimal import Decimal
from typing import Any

from thriftune.events import Event, EventLog
from thriftune.money.amounts import shown_money

NOTIFY_SECONDS = 10.0  # how long a notifier may take
CLAIM = "alert.claimed"


def sentence(project: str, data: dict[str, Any]) -> str:
    """An alert's data in one sentence."""
    spent, allowance = (shown_money(Decimal(data[name]), data["currency"]) for name in ("spent", "allowance"))
    what = {"total": "the budget", "phase": f"the allowance for {data['name']}"}.get(data["scope"])
    return (
        f"{project}: {data['level']} % of {what or 'the allowance for ' + data['name']} spent: {spent} of {allowance}"
    )


class Notifier:
    """Hands alerts on, each in a thread of its own.

    Args:
        events: the record; new alerts come from it by subscription.
        to: a command, or an address that begins with http:// or https://.
    """

    def __init__(self, events: EventLog, to: str) -> None:
        self._events = events
        self._to = to
        self._at_work: list[threading.Thread] = []

    def __call__(self, event: Event) -> None:
        """Take an event; an alert is claimed and handed on."""
        if event.kind != "alert":
            return
        self._events.emit(CLAIM, alert=event.seq)
        told = event.data | {"project": event.project, "attempt": event.attempt, "at": event.at}
        told["text"] = sentence(event.project, event.data)
        thread = threading.Thread(target=self._tell, args=(told,), name="thriftune-alert", daemon=True)
        self._at_work.append(thread)
        thread.start()

    def catch_up(self) -> None:
        """Hand on what an earlier process recorded and did not get to claim."""
        kept = self._events.read(kinds=["alert", CLAIM])
        claimed = {event.data["alert"] for event in kept if event.kind == CLAIM}
        for event in kept:
            if event.kind == "alert" and event.seq not in claimed:
                self(event)

    def finish(self) -> None:
        """Wait for what is being handed on."""
        for thread in self._at_work:
            thread.join(NOTIFY_SECONDS)

    def _tell(self, told: dict[str, Any]) -> None:
        problem = _post(self._to, told) if self._to.startswith(("http://", "https://")) else _give(self._to, told)
        if problem:
            what = f"an alert was not handed on: {problem}; it is kept: {told['text']}"
            self._events.emit("warning", where="budget.notify", what=what)


def notified(events: EventLog, to: str | None) -> Notifier | None:
    """Hand on the alerts of a record from now on, and those that are left over; None where there is nobody to tell."""
    if to is None:
        return None
    notifier = Notifier(events, to)
    notifier.catch_up()
    events.subscribe(notifier)
    return notifier


def _give(command: str, told: dict[str, Any]) -> str:
    """Run a command with the alert on its standard input; what went wrong, or an empty text."""
    try:
        ended = subprocess.run(
            shlex.split(command),
            input=json.dumps(told),
            text=True,
            capture_output=True,
            timeout=NOTIFY_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"the command of budget.notify: {error}"
    said = (ended.stderr.strip().splitlines() or [""])[-1]
    return f"the command of budget.notify ended with status {ended.returncode}: {said}" if ended.returncode else ""


def _post(address: str, told: dict[str, Any]) -> str:
    """Post an alert to an address; what went wrong, or an empty text. The address may hold a secret and is not told."""
    import httpx

    try:
        answer = httpx.post(address, json=told, timeout=NOTIFY_SECONDS)
    except httpx.HTTPError as error:
        return f"the address of budget.notify: {type(error).__name__}"
    except httpx.InvalidURL:
        return "the address of budget.notify is no address"
    return "" if answer.is_success else f"the address of budget.notify answered with status {answer.status_code}"
