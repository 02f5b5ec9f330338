"""Asana's REST API 1.0 (developers.asana.com): a project, its sections and tasks.

An external id (`external.gid`) can be set by OAuth applications alone, so a task of ours is known by the id that the
project's database keeps, and by a line of its notes. Due dates are instants (`due_at`); a date without a time that a
person sets (`due_on`) is read as the end of that day. Start dates are for paying workspaces (402 where they are not
taken): then the notes alone tell them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from thriftune.errors import BadInput
from thriftune.timeline.boards.api import MOST_PAGES, Api, Refused, instant_read, instant_text
from thriftune.timeline.boards.items import Entry, Item

ADDRESS = "https://app.asana.com/api/1.0"
TOKEN = "ASANA_ACCESS_TOKEN"  # the variable's name
PAGE = 100  # the most that Asana gives at once
FIELDS = "name,notes,completed,completed_at,due_at,due_on,start_at"
PAYMENT_REQUIRED = 402


class Asana:
    """An Asana project.

    Args:
        api: asks.
        place: the project's gid.
        zone: of the days that people name.

    Raises:
        BadInput: `place` is no gid.
    """

    service = "asana"

    def __init__(self, api: Api, place: str, zone: str) -> None:
        if not re.fullmatch(r"\d{1,32}", place):
            raise BadInput(
                "this is no project of Asana's",
                where="--project",
                found=place,
                expected="the number in the project's address",
                way_out="open the project in Asana and take the first long number of its address",
            )
        self.place = place
        self._api = api
        self._zone = ZoneInfo(zone)
        self._sections: dict[str, str] | None = None
        self._takes_starts = True

    def name(self) -> str:
        """What people call it."""
        return str(self._api.ask("GET", f"/projects/{self.place}", {"opt_fields": "name"})["data"]["name"])

    def entries(self) -> Iterator[Entry]:
        """All tasks of the project, page by page."""
        for found in self._pages(f"/projects/{self.place}/tasks", FIELDS):
            yield self._entry(found)

    def find(self, id: str) -> Entry | None:
        """A task wherever it stands."""
        answer = self._api.ask("GET", f"/tasks/{_gid(id)}", {"opt_fields": FIELDS}, or_none=True)
        return None if answer is None else self._entry(answer["data"])

    def create(self, item: Item) -> Entry:
        """A new task in the section of the item's group."""
        place = {"memberships": [{"project": self.place, "section": self._section(item.group)}]}
        return self._write("POST", "/tasks", {**place, "projects": [self.place]}, item, with_due=True)

    def update(self, id: str, item: Item, with_due: bool) -> Entry:
        """Name, notes and completion, and the dates where they are wanted."""
        return self._write("PUT", f"/tasks/{_gid(id)}", {}, item, with_due)

    def _write(self, method: str, path: str, fields: Mapping[str, Any], item: Item, with_due: bool) -> Entry:
        said: dict[str, Any] = {**fields, "name": item.title, "notes": item.notes, "completed": item.completed}
        if with_due:
            said["due_at"] = instant_text(item.due)
        if with_due and self._takes_starts and item.starts < item.due:
            try:
                return self._sent(method, path, said | {"start_at": instant_text(item.starts)})
            except Refused as refused:
                if refused.status != PAYMENT_REQUIRED:
                    raise
                self._takes_starts = False
        return self._sent(method, path, said)

    def _sent(self, method: str, path: str, said: Mapping[str, Any]) -> Entry:
        return self._entry(self._api.ask(method, path, {"opt_fields": FIELDS}, {"data": said})["data"])

    def _section(self, name: str) -> str:
        """The section of this name, made where there is none."""
        path = f"/projects/{self.place}/sections"
        if self._sections is None:
            found = list(self._pages(path, "name"))
            self._sections = {str(one["name"]): str(one["gid"]) for one in reversed(found)}
        if name not in self._sections:
            made = self._api.ask("POST", path, {"opt_fields": "name"}, {"data": {"name": name}})["data"]
            self._sections[name] = str(made["gid"])
        return self._sections[name]

    def _pages(self, path: str, fields: str) -> Iterator[Mapping[str, Any]]:
        params: dict[str, str | int] = {"limit": PAGE, "opt_fields": fields}
        for _ in range(MOST_PAGES):
            answer = self._api.ask("GET", path, params)
            yield from answer["data"]
            following = answer.get("next_page")
            if not following:
                return
            params = params | {"offset": following["offset"]}
        raise Refused("Asana has more pages than can be", path, str(MOST_PAGES), "a last page", "use another project")

    def _entry(self, found: Mapping[str, Any]) -> Entry:
        return Entry(
            id=str(found["gid"]),
            title=str(found.get("name") or ""),
            due=instant_read(found.get("due_at")) or self._end_of(found.get("due_on")),
            completed=bool(found.get("completed")),
            completed_at=instant_read(found.get("completed_at")),
            notes=str(found.get("notes") or ""),
        )

    def _end_of(self, day: Any) -> float | None:
        if not isinstance(day, str):
            return None
        try:
            following = date.fromisoformat(day) + timedelta(days=1)
        except ValueError:
            return None
        return datetime.combine(following, time(), self._zone).timestamp()


def _gid(id: str) -> str:
    if not re.fullmatch(r"\d{1,32}", id):
        raise Refused("Asana gave an id that is none", "a task's gid", id, "a number", "report it, please")
    return id
