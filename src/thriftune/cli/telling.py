"""Events as lines for people: one function a kind, each short enough for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from thriftune.budget.alerts import sentence
from thriftune.events import Event
from thriftune.report.wording import chosen, duration, metric_name, money, plain, predictor_name, score, spaced

TELLING = (
    "f1_span",
    "f1_macro",
    "accuracy",
    "rougeL",
    "bleu",
    "exact_match",
    "preference_accuracy",
    "perplexity",
)  # the figures that come first
MANY_FIGURES = 2  # in one line


def pace(step_seconds: float) -> str:
    """A rate of steps, in the unit that gives a number above one."""
    return f"{step_seconds:.2f} s a step" if step_seconds >= 1 else f"{1 / max(step_seconds, 1e-9):.1f} steps a second"


def said(event: Event, currency: str = "") -> str | None:
    """An event as a line for people; None for those that are not worth one."""
    say = SAID.get(event.kind)
    return None if say is None else say(event, currency)


def _started(event: Event, _currency: str) -> str:
    return f"attempt {event.attempt} of {plain(event.project)}"


def _finished(event: Event, _currency: str) -> str:
    message = event.data.get("message")
    return f"{event.data['outcome']}: {plain(message)}" if message else str(event.data["outcome"])


def _queued(event: Event, _currency: str) -> str:
    data = event.data
    slack = "" if data["slack_s"] is None else f", slack {_signed(data['slack_s'])}"
    what = "the machine" if data["cluster"] is None else f"the machine and the cluster {plain(data['cluster'])}"
    return (
        f"waiting for {what}: place {data['place']} of {data['of']}, after {plain(', '.join(data['before']))};"
        f" priority {data['priority']}{slack}"
    )


def _signed(seconds: float) -> str:
    return duration(seconds) if seconds >= 0 else f"-{duration(-seconds)}"


def _taken(event: Event, _currency: str) -> str:
    return f"the machine is free: waited {duration(event.data['waited_s'])}, which costs nothing"


def _stage_started(event: Event, _currency: str) -> str:
    return f"{spaced(event.data['stage'])} …"


def _stage_finished(event: Event, _currency: str) -> str:
    how = "found as it was left" if event.data["reused"] else f"done in {duration(event.data['seconds'])}"
    return f"{spaced(event.data['stage'])}: {how}"


def _decided(event: Event, _currency: str) -> str:
    data = event.data
    step = f" at step {data['at_step']}" if data["at_step"] else ""
    value = chosen(data["what"], data["chosen"])
    return f"decided{step}: {spaced(data['what'])} = {value}, because {plain(data['because'])}"


def _validated(event: Event, _currency: str) -> str:
    data = event.data
    best = ", the best so far" if data["best"] else ""
    figures = [f"loss {score(data['loss'])}", *([_figures(data["metrics"])] if data["metrics"] else [])]
    return f"validation at step {data['step']}: {', '.join(figures)}{best}"


def _weighed(event: Event, currency: str) -> str:
    data = event.data
    worth, cost = (money(Decimal(data[name]), currency) for name in ("worth", "cost"))
    gain = f"at most {data['most_points']:.1f} points more by step {data['until']:,}, worth {worth}, for {cost}"
    return f"worth its cost at step {data['step']}: {gain}" if data["pays"] else f"not worth its cost: {gain}"


def _looked(event: Event, _currency: str) -> str:
    data = event.data
    tried = ", ".join(f"{name} {value}" for name, value in data["values"].items())
    best = ", ".join(f"{name} {value}" for name, value in data["best"].items())
    place = f"fold {data['fold'] + 1}, look {data['rung']} of {data['rungs']}"
    if data.get("failed"):
        return f"search: {tried} ({place}) is left: {plain(data['failed'])}"
    return f"search: {tried} ({place}): {score(data['score'])}; best so far {best}, expected {score(data['expected'])}"


def _held_out(event: Event, _currency: str) -> str:
    data = event.data
    return f"evidence: part {data['part']} of {data['of']}, {data['rows']} rows, is answered by a model without them"


def _searched(event: Event, _currency: str) -> str:
    found = ", ".join(f"{name} {value}" for name, value in event.data["values"].items())
    return f"search: {found or 'nothing was tried'}; it ended because {event.data['because']}"


def _told_parts(event: Event, _currency: str) -> str:
    after = f"after {plain(event.data['after'])}" if event.data["after"] else "before the first part"
    losses = (f"{plain(part)} {score(figures['loss'])}" for part, figures in event.data["parts"].items())
    return f"{after}, the loss on each part: {', '.join(losses)}"


def _overflowed(event: Event, _currency: str) -> str:
    data = event.data
    return f"step {data['step']} skipped: fp16 overflowed, and the loss is scaled by {data['scale']:g} from here on"


def _moved(event: Event, currency: str) -> str:
    data = event.data
    amount = money(Decimal(data["amount"]), currency)
    return f"budget: {amount} moved from {data['source']} to {data['target']}: {plain(data['reason'])}"


def _added(event: Event, currency: str) -> str:
    return f"budget: {money(Decimal(event.data['amount']), currency)} added: {plain(event.data['reason'])}"


def _alerted(event: Event, _currency: str) -> str:
    return f"alert: {sentence(plain(event.project), event.data)}"


def _reviewed(event: Event, currency: str) -> str | None:
    """A review that finds all well is kept, and not told while a run is at work."""
    data = event.data
    if not data["in_danger"]:
        return None
    could = "; ".join(f"{plain(each['says'])} saves {_saved(each, currency)}" for each in data["proposals"])
    ahead, left = duration(data["seconds"][-1]), duration(data["limit_seconds"])
    return f"review, {plain(data['when'])}: what is to come may take {ahead}, {left} are left{could and ': ' + could}"


def _saved(proposal: Mapping[str, Any], currency: str) -> str:
    return f"{duration(proposal['saves_seconds'])}, {money(Decimal(proposal['saves_money']), currency)}"


def _lease_ended(event: Event, _currency: str) -> str:
    data = event.data
    return f"watchdog: process {data['pid']} is gone; its lease of machine {plain(data['machine'])} was ended"


def _stopped(event: Event, _currency: str) -> str:
    data = event.data
    how = "was run" if data["status"] == 0 else f"failed: {plain(data['said'])}"
    return f"watchdog: the stop command of machine {plain(data['machine'])} {how}"


def _entry(event: Event, _currency: str) -> str:
    data = event.data
    dropped = ", ".join(f"{rows:,} {plain(reason)}" for reason, rows in data["dropped"].items() if rows)
    kept = f"{spaced(data['step'])}: {data['kept']:,} rows kept"
    return f"{kept}, dropped: {dropped}" if dropped else kept


def _scored(event: Event, _currency: str) -> str:
    data = event.data
    values = {name: estimate["value"] for name, estimate in data["metrics"].items()}
    return f"{predictor_name(data['predictor'])} on {data['split']}: {_figures(values)}"


def _figures(metrics: Mapping[str, float]) -> str:
    """The most telling of some metrics."""
    names = [name for name in TELLING if name in metrics] or list(metrics)
    return ", ".join(f"{metric_name(name)} {score(metrics[name])}" for name in names[:MANY_FIGURES])


def _warned(event: Event, _currency: str) -> str:
    return f"warning: {plain(event.data['what'])}"


def _breached(event: Event, _currency: str) -> str:
    data = event.data
    took, upper = duration(data["actual_s"]), duration(data["upper_s"])
    return f"breach: {plain(data['what'])} took {took} where {upper} was reserved: {plain(data['cause'])}"


def _quoted(event: Event, _currency: str) -> str:
    return plain(event.data["what"])


def _job_state(event: Event, _currency: str) -> str:
    return f"tuning job {plain(event.data['name'])}: {plain(event.data['state'])}"


def _concluded(event: Event, _currency: str) -> str:
    return "\n  ".join([f"verdict: {event.data['decision']}", *(plain(reason) for reason in event.data["reasons"])])


SAID: dict[str, Callable[[Event, str], str | None]] = {
    "attempt.started": _started,
    "attempt.finished": _finished,
    "queue.waiting": _queued,
    "queue.taken": _taken,
    "stage.started": _stage_started,
    "stage.finished": _stage_finished,
    "decision": _decided,
    "job.quoted": _quoted,
    "job.state": _job_state,
    "training.overflow": _overflowed,
    "training.validation": _validated,
    "training.weighed": _weighed,
    "training.parts": _told_parts,
    "search.look": _looked,
    "search.finished": _searched,
    "evidence.part": _held_out,
    "budget.moved": _moved,
    "budget.added": _added,
    "alert": _alerted,
    "review": _reviewed,
    "lease.ended": _lease_ended,
    "machine.stopped": _stopped,
    "data.entry": _entry,
    "evaluation.scores": _scored,
    "warning": _warned,
    "breach": _breached,
    "verdict": _concluded,
}
