"""Local servers that speak as much of Asana's and Trello's documented REST APIs as a synchronisation uses.

They refuse what the services refuse: a wrong token, an unknown id, pages beyond the limit, fields that they do not
know, a start without a due date. Faults can be put in the way of the n-th request of a method.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ASANA_TOKEN = "2/120000/asana-s3cret:of-a-person"
TRELLO_KEY, TRELLO_TOKEN = "0123456789abcdef0123456789abcdef", "ATTAtrello-s3cret-of-a-person"
PROJECT, BOARD, SHORT_BOARD = "1200000000000001", "5f00000000000000000000aa", "aBcD1234"
NOW = "2026-11-25T12:00:00.000Z"


@dataclass(frozen=True)
class Fault:
    """What a request gets instead of an answer; `late`: after the service has done it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: {"Retry-After": "0"})
    late: bool = False


class Refuses(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Service:
    """A service: what it holds, what it was asked, and what goes wrong."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], dict[str, Any] | None]] = []
        self.faults: dict[tuple[str, int], Fault] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, str] = {}
        self.address = ""
        self._count: dict[str, int] = {}
        self._made = 0

    def number(self, form: str) -> str:
        """An id that was never given."""
        self._made += 1
        return form.format(self._made)

    @property
    def written(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _, _ in self.asked if method != "GET"]

    def titled(self, title: str) -> dict[str, Any]:
        (found,) = [one for one in self.entries.values() if one["name"] == title]
        return found

    def forget(self) -> None:
        """Begin to count and to note requests anew."""
        self.asked, self._count, self.faults = [], {}, {}

    def take(self, method: str, path: str, query: dict[str, str], body: Any, header: str) -> tuple[int, Any, Any]:
        self._count[method] = self._count.get(method, 0) + 1
        self.asked.append((method, path, query, body))
        fault = self.faults.get((method, self._count[method]))
        if fault is not None and not fault.late:
            return fault.status, self.error(f"out of order; you sent {header}"), fault.headers
        try:
            answer = self.answer(method, path, query, body, header)
        except Refuses as refused:
            return refused.status, self.error(refused.message), {}
        return (200, answer, {}) if fault is None else (fault.status, self.error("too late"), fault.headers)

    def error(self, message: str) -> Any:
        raise NotImplementedError

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str) -> Any:
        raise NotImplementedError


class AsanaService(Service):
    """developers.asana.com: projects, sections, tasks; `start_at` for paying workspaces only."""

    FIELDS = frozenset(["name", "notes", "completed", "due_at", "start_at", "projects", "memberships"])
    most = 2  # entries a page, whatever limit is asked for up to 100

    def __init__(self, paying: bool = True) -> None:
        super().__init__()
        self.paying = paying

    def error(self, message: str) -> Any:
        return {"errors": [{"message": message, "help": "For more information on API status codes …"}]}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str) -> Any:  # noqa: PLR0911
        if header != f"Bearer {ASANA_TOKEN}":
            raise Refuses(401, "Not Authorized")
        match (method, *path.strip("/").split("/")):
            case ("GET", "projects", id):
                self._project(id)
                return {"data": {"gid": id, "name": "Films"}}
            case ("GET", "projects", id, "tasks"):
                self._project(id)
                return self._page([self._shown(one, query) for one in self.entries.values()], query)
            case ("GET", "projects", id, "sections"):
                self._project(id)
                return self._page([{"gid": gid, "name": name} for gid, name in self.groups.items()], query)
            case ("POST", "projects", id, "sections"):
                self._project(id)
                gid = str(1300 + len(self.groups))
                self.groups[gid] = body["data"]["name"]
                return {"data": {"gid": gid, "name": self.groups[gid]}}
            case ("POST", "tasks"):
                data = self._checked(body["data"])
                assert data["projects"] == [PROJECT]
                assert data["memberships"][0]["section"] in self.groups
                gid = self.number("14{:06d}")
                self.entries[gid] = {"gid": gid, "completed_at": None, "due_on": None, "section": "", **data}
                self.entries[gid]["section"] = self.groups[data["memberships"][0]["section"]]
                return {"data": self._shown(self._set(gid, {}), query)}
            case ("GET", "tasks", gid):
                return {"data": self._shown(self._task(gid), query)}
            case ("PUT", "tasks", gid):
                self._task(gid)
                return {"data": self._shown(self._set(gid, self._checked(body["data"])), query)}
        raise Refuses(404, f"No matching route for request {path}")

    def _page(self, found: list[dict[str, Any]], query: dict[str, str]) -> Any:
        limit = int(query.get("limit", "0"))
        if not 1 <= limit <= 100:
            raise Refuses(400, "limit: must be between 1 and 100")
        offset = query.get("offset", "")
        if offset and not offset.startswith("eyJ"):
            raise Refuses(400, "offset: Your pagination token has expired")
        begin = int(offset.removeprefix("eyJ") or 0)
        end = begin + min(limit, self.most)
        following = {"offset": f"eyJ{end}", "path": "/…", "uri": "https://…"} if end < len(found) else None
        return {"data": found[begin:end], "next_page": following}

    def _shown(self, task: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        wanted = {"gid", *query.get("opt_fields", "name").split(",")}
        return {name: value for name, value in task.items() if name in wanted}

    def _checked(self, data: dict[str, Any]) -> dict[str, Any]:
        unknown = set(data) - self.FIELDS
        if unknown:
            raise Refuses(400, f"Unknown field {sorted(unknown)[0]}")
        if "start_at" in data and not self.paying:
            raise Refuses(402, "Start dates are not available in this workspace")
        if "start_at" in data and "due_at" not in data:
            raise Refuses(400, "You must pass a due date with a start date")
        if "start_at" in data and data["start_at"] >= data["due_at"]:
            raise Refuses(400, "start_at must be before due_at")
        return data

    def _set(self, gid: str, data: dict[str, Any]) -> dict[str, Any]:
        task = self.entries[gid]
        task.update(data)
        if "due_at" in task:
            task["due_on"] = task["due_at"][:10]
        task["completed_at"] = (task["completed_at"] or NOW) if task["completed"] else None
        return task

    def _task(self, gid: str) -> dict[str, Any]:
        if gid not in self.entries:
            raise Refuses(404, f"task: Unknown object: {gid}")
        return self.entries[gid]

    def _project(self, id: str) -> None:
        if id != PROJECT:
            raise Refuses(404, f"project: Unknown object: {id}")


class TrelloService(Service):
    """developer.atlassian.com/cloud/trello/rest: boards, lists, cards; newest first, paged by `before`."""

    FIELDS = frozenset(["name", "desc", "due", "start", "dueComplete", "idList", "pos"])

    def error(self, message: str) -> Any:
        return {"message": message, "error": "API_ERROR"}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, header: str) -> Any:  # noqa: PLR0911
        if header != f'OAuth oauth_consumer_key="{TRELLO_KEY}", oauth_token="{TRELLO_TOKEN}"':
            raise Refuses(401, "invalid token")
        match (method, *path.strip("/").split("/")):
            case ("GET", "boards", id):
                self._board(id)
                return {"id": BOARD, "name": "Films"}
            case ("GET", "boards", id, "lists"):
                self._board(id)
                return [{"id": one, "name": name} for one, name in self.groups.items()]
            case ("GET", "boards", id, "cards", "all"):
                self._board(id)
                limit = int(query["limit"])
                before = query.get("before", "~")
                newest = sorted((one for one in self.entries.values() if one["id"] < before), key=lambda one: one["id"])
                return [self._shown(one, query) for one in newest[::-1][:limit]]
            case ("POST", "lists"):
                if body["idBoard"] != BOARD:
                    raise Refuses(400, "invalid value for idBoard")
                id = f"5f0000000000000000000{len(self.groups):03d}"
                self.groups[id] = body["name"]
                return {"id": id, "name": body["name"]}
            case ("POST", "cards"):
                id = self.number("5f1000000000000000{:06d}")
                assert body["idList"] in self.groups
                self.entries[id] = {"id": id, "closed": False}
                return self._shown(self._set(id, body), {})
            case ("GET", "cards", id):
                return self._shown(self._card(id), query)
            case ("PUT", "cards", id):
                self._card(id)
                return self._shown(self._set(id, body), {})
        raise Refuses(404, "The requested resource was not found.")

    def _shown(self, card: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        wanted = {"id", *query["fields"].split(",")} if "fields" in query else set(card)
        return {name: value for name, value in card.items() if name in wanted}

    def _set(self, id: str, data: dict[str, Any]) -> dict[str, Any]:
        unknown = set(data) - self.FIELDS
        if unknown:
            raise Refuses(400, f"invalid value for {sorted(unknown)[0]}")
        said = {**data, "dueComplete": bool(data["dueComplete"]), "dateLastActivity": NOW}
        self.entries[id].update(said)
        return self.entries[id]

    def _card(self, id: str) -> dict[str, Any]:
        if id not in self.entries:
            raise Refuses(404, "The requested resource was not found.")
        return self.entries[id]

    def _board(self, id: str) -> None:
        if id not in (BOARD, SHORT_BOARD):
            raise Refuses(404, "The requested resource was not found.")


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    """The service, at an address of this machine's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            header = self.headers.get("Authorization", "")
            status, answer, headers = service.take(self.command, parts.path, query, body, header)
            sent = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    service.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
