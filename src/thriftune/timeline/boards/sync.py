"""Keeping a board and a timeline in step, both ways.

What a board was last known to say of each item is kept in the project's events, so that a change made over there is
told from one made here. A change of a person's task over there (a moved due date, a tick) is taken over as a decision;
everything else on our entries is ours to state and is changed back. What we wrote is recorded entry by entry: a
synchronisation that breaks off in the middle goes on where it was, and one that finds nothing to change writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from thriftune.timeline.boards.api import Refused
from thriftune.timeline.boards.items import TIMES, Board, Entry, Item
from thriftune.timeline.options import TimelineOptions
from thriftune.timeline.phases import Recorded
from thriftune.timeline.told import Told, stated_of

KIND = "timeline.board"
SAME_SECONDS = 1.0  # services round instants
LEAST_MOVE = 60.0  # seconds; a date that moved by less is left as it is
LEAST_SHARE = 0.05  # likewise by less than this share of the time until it

What = Literal["created", "created again", "updated", "taken over", "left alone", "refused"]


class Journal(Protocol):
    """Where what was done is recorded; it is durable when a call returns."""

    def emit_all(self, new: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Record events (kind, data) in one transaction."""
        ...


@dataclass(frozen=True)
class Kept:
    """What a board was last known to say of an item.

    Args:
        service: `asana` or `trello`.
        place: the project or board.
        key: the item's.
        id: the entry's, on the service.
        due: an instant, as the service answered.
        completed: whether it was ticked off.
    """

    service: str
    place: str
    key: str
    id: str
    due: float | None
    completed: bool


@dataclass(frozen=True)
class Change:
    """Something that a synchronisation did, or would do.

    Args:
        what: it did.
        title: of the entry.
        detail: why, or what exactly; may be empty.
    """

    what: What
    title: str
    detail: str = ""


@dataclass(frozen=True)
class Seen:
    """What a board said when it was read.

    Args:
        entries: by the item's key; an item without one has none there.
        told: what people said of their tasks.
        changes: the same in words.
    """

    entries: Mapping[str, Entry]
    told: tuple[Told, ...]
    changes: tuple[Change, ...]


def kept_of(events: Iterable[Recorded], service: str, place: str) -> dict[str, Kept]:
    """What was last recorded of each item on a board, by key."""
    found: dict[str, Kept] = {}
    for event in events:
        if event.kind == KIND and (event.data["service"], event.data["place"]) == (service, place):
            found[event.data["key"]] = Kept(**event.data)
    return found


def pull(
    board: Board,
    items: Sequence[Item],
    kept: dict[str, Kept],
    options: TimelineOptions,
    now: float,
    journal: Journal | None,
) -> Seen:
    """Read a board, and take over what people changed of their tasks.

    Args:
        board: what to read.
        items: what it should have.
        kept: what it said last; renewed here.
        options: what the project file says of the tasks, without what was told.
        now: the instant that a completion without one gets; none lies later.
        journal: records decisions, each together with what it rests on; None for a dry run.

    Raises:
        BadInput: the board cannot be read; nothing is taken over then.
    """
    entries = _entries(board, items, kept)
    tasks = {task.name: task for task in options.tasks}
    told: list[Told] = []
    changes: list[Change] = []
    for item in items:
        entry, base = entries.get(item.key), kept.get(item.key)
        if entry is None or not item.task:
            continue
        if base is None or base.id != entry.id:  # found by its mark: only a tick can be told from what we wrote
            base = Kept(board.service, board.place, item.key, entry.id, entry.due, item.completed)
        found = []
        if entry.completed not in (base.completed, item.completed):
            at = min(entry.completed_at or now, now) if entry.completed else None
            found.append(Told(item.task, "done", at, stated_of(tasks[item.task], "done"), board.service))
        if not entry.completed and not _same(entry.due, base.due) and not _same(entry.due, item.due):
            found.append(Told(item.task, "due", entry.due, stated_of(tasks[item.task], "due"), board.service))
        if not found:
            continue
        told += found
        decisions = [one.as_decision() for one in found]
        changes += [Change("taken over", item.title, str(one["because"])) for one in decisions]
        kept[item.key] = replace(base, due=entry.due, completed=entry.completed)
        if journal is not None:
            journal.emit_all([*(("decision", one) for one in decisions), (KIND, asdict(kept[item.key]))])
    return Seen(entries, tuple(told), tuple(changes))


def push(
    board: Board,
    items: Sequence[Item],
    seen: Mapping[str, Entry],
    kept: dict[str, Kept],
    now: float,
    journal: Journal | None,
) -> Iterator[Change]:
    """Make a board say what the timeline says, entry by entry; what is done is recorded before it is told.

    Args:
        board: what to write to.
        items: what it should have.
        seen: what it has, by key.
        kept: what it said last; renewed here.
        now: for dates that moved by too little to be worth a change.
        journal: records what was written; None for a dry run.

    Raises:
        OutOfReach: the service does not answer any more; the next synchronisation goes on from there.
    """
    for item in items:
        entry, base = seen.get(item.key), kept.get(item.key)
        try:
            change = _written(board, item, entry, base, now, journal is None)
        except Refused as refused:
            yield Change("refused", item.title, refused.found)
            continue
        if change is not None:
            entry = change[1]
        if entry is not None:
            now_kept = Kept(board.service, board.place, item.key, entry.id, entry.due, entry.completed)
            if now_kept != base and journal is not None:
                kept[item.key] = now_kept
                journal.emit_all([(KIND, asdict(now_kept))])
        if change is not None:
            yield change[0]
    known = {item.key for item in items}
    for key in kept:
        if key not in known:
            yield Change("left alone", key.partition("/")[2], "it is no part of the timeline any more")


def _written(
    board: Board, item: Item, entry: Entry | None, base: Kept | None, now: float, dry_run: bool
) -> tuple[Change, Entry | None] | None:
    """Make one entry say what an item says; None where it does already."""
    if entry is None:
        made = Change("created", item.title) if base is None else Change("created again", item.title, "it was deleted")
        return made, None if dry_run else board.create(item)
    touched = base is None or base.id != entry.id or not _same(entry.due, base.due)
    moved = _has_moved(item, entry.due, now, 0.0 if touched else LEAST_SHARE)
    # What people wrote below our line stays.
    notes = item.notes + entry.notes.partition(item.mark)[2]
    differences = [
        said
        for said, differs in (
            ("name", item.title != entry.title),
            ("date", moved),
            ("completion", item.completed != entry.completed),
            ("description", item.mark not in entry.notes or _settled(notes) != _settled(entry.notes)),
        )
        if differs
    ]
    if not differences:
        return None
    written = None if dry_run else board.update(entry.id, replace(item, notes=notes), with_due=moved)
    return Change("updated", item.title, ", ".join(differences)), written


def _has_moved(item: Item, due: float | None, now: float, least_share: float) -> bool:
    if due is None:
        return True
    least = max(LEAST_MOVE, least_share * (item.due - now)) if least_share else SAME_SECONDS
    return abs(item.due - due) > least


def _entries(board: Board, items: Sequence[Item], kept: Mapping[str, Kept]) -> dict[str, Entry]:
    """The items' entries, by key: by the id that was recorded, else by the mark in the notes, the oldest first."""
    everything = list(board.entries())
    by_id = {entry.id: entry for entry in everything}
    found: dict[str, Entry] = {}
    for item in items:
        base = kept.get(item.key)
        entry = None
        if base is not None:
            entry = by_id.get(base.id) or board.find(base.id)
        if entry is None:
            marked = [one for one in everything if item.mark in one.notes]
            entry = min(marked, key=lambda one: (len(one.id), one.id), default=None)
        if entry is not None:
            found[item.key] = entry
    return found


def _same(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else abs(one - other) <= SAME_SECONDS


def _settled(notes: str) -> str:
    """A description without the line that tells instants, which alone is not worth a change."""
    return " ".join(" ".join(line for line in notes.splitlines() if not line.startswith(TIMES)).split())
