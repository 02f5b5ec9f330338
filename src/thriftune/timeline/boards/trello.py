"""Trello's REST API 1 (developer.atlassian.com/cloud/trello/rest): a board, its lists and cards.

Key and token go in the Authorization header, never in an address, which programs on the way write into their logs.
Cards come newest first, at most a thousand at once, and go on `before` the oldest that was given. Trello keeps no
instant of completion: the card's last activity stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from thriftune.errors import BadInput
from thriftune.timeline.boards.api import MOST_PAGES, Api, Refused, instant_read, instant_text
from thriftune.timeline.boards.items import Entry, Item

ADDRESS = "https://api.trello.com/1"
KEY, TOKEN = "TRELLO_API_KEY", "TRELLO_API_TOKEN"  # the variables' names
PAGE = 1000  # the most that Trello gives at once
FIELDS = "name,desc,due,start,dueComplete,dateLastActivity"


def authorization(key: str, token: str) -> str:
    """The header's value."""
    return f'OAuth oauth_consumer_key="{key}", oauth_token="{token}"'


class Trello:
    """A Trello board.

    Args:
        api: asks.
        place: the board's id, or the short one of its address.
        page: cards to ask for at once.

    Raises:
        BadInput: `place` is no id.
    """

    service = "trello"

    def __init__(self, api: Api, place: str, page: int = PAGE) -> None:
        if not re.fullmatch(r"[0-9A-Za-z]{8,64}", place):
            raise BadInput(
                "this is no board of Trello's",
                where="--board",
                found=place,
                expected="the letters behind trello.com/b/ in the board's address, or its id",
                way_out="open the board in Trello and take them from its address",
            )
        self.place = place
        self._api = api
        self._page = page
        self._lists: dict[str, str] | None = None

    def name(self) -> str:
        """What people call it."""
        return str(self._api.ask("GET", f"/boards/{self.place}", {"fields": "name"})["name"])

    def entries(self) -> Iterator[Entry]:
        """All cards of the board, the archived ones too."""
        params: dict[str, str | int] = {"fields": FIELDS, "limit": self._page}
        path = f"/boards/{self.place}/cards/all"
        for _ in range(MOST_PAGES):
            found = self._api.ask("GET", path, params)
            yield from (_entry(one) for one in found)
            if len(found) < self._page:
                return
            params = params | {"before": min(str(one["id"]) for one in found)}
        raise Refused("Trello has more pages than can be", path, str(MOST_PAGES), "a last page", "use another board")

    def find(self, id: str) -> Entry | None:
        """A card wherever it stands."""
        found = self._api.ask("GET", f"/cards/{_id(id)}", {"fields": FIELDS}, or_none=True)
        return None if found is None else _entry(found)

    def create(self, item: Item) -> Entry:
        """A new card in the list of the item's group."""
        fields = {"idList": self._list(item.group), "pos": "bottom"}
        return _entry(self._api.ask("POST", "/cards", body={**fields, **_said(item, with_due=True)}))

    def update(self, id: str, item: Item, with_due: bool) -> Entry:
        """Name, description and completion, and the dates where they are wanted."""
        return _entry(self._api.ask("PUT", f"/cards/{_id(id)}", body=_said(item, with_due)))

    def _list(self, name: str) -> str:
        """The open list of this name, made where there is none."""
        if self._lists is None:
            found = self._api.ask("GET", f"/boards/{self.place}/lists", {"fields": "name", "filter": "open"})
            self._lists = {str(one["name"]): str(one["id"]) for one in reversed(found)}
        if name not in self._lists:
            # The list is asked for by the board's long id, which its short one does not do for.
            board = self._api.ask("GET", f"/boards/{self.place}", {"fields": "name"})["id"]
            made = self._api.ask("POST", "/lists", body={"name": name, "idBoard": str(board), "pos": "bottom"})
            self._lists[name] = str(made["id"])
        return self._lists[name]


def _said(item: Item, with_due: bool) -> dict[str, str | bool]:
    said: dict[str, str | bool] = {
        "name": item.title,
        "desc": item.notes,
        "dueComplete": item.completed,
    }
    if with_due:
        said |= {"due": instant_text(item.due), "start": instant_text(item.starts)}
    return said


def _entry(found: Mapping[str, Any]) -> Entry:
    completed = bool(found.get("dueComplete"))
    return Entry(
        id=str(found["id"]),
        title=str(found.get("name") or ""),
        due=instant_read(found.get("due")),
        completed=completed,
        completed_at=instant_read(found.get("dateLastActivity")) if completed else None,
        notes=str(found.get("desc") or ""),
    )


def _id(id: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z]{8,64}", id):
        raise Refused("Trello gave an id that is none", "a card's id", id, "letters and figures", "report it, please")
    return id
