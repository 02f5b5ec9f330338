"""A hub that speaks the real one's protocol (model info, tree, files, error headers) and serves folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"

REFUSALS = {"gated": (403, "GatedRepo"), "broken": (500, "Broken"), "closed": (401, "")}
"""Names of models that the hub refuses: the status and the error code."""


def move_main(models: Path, name: str, commit: str) -> Path:
    """Let a model's main branch stand at another commit; gives that commit's folder, a copy of the one before."""
    before = _folder(models, name, "main")
    folder = models / f"{name}@{commit}"
    shutil.copytree(before, folder)
    (models / f"{name}.main").write_text(commit)
    return folder


def _commit(models: Path, name: str, revision: str) -> str:
    """The commit that a revision means."""
    if revision != "main":
        return revision
    moved = models / f"{name}.main"
    return moved.read_text() if moved.exists() else COMMIT


def _folder(models: Path, name: str, revision: str) -> Path:
    """The files of a model at a revision."""
    commit = _commit(models, name, revision)
    return models / (name if commit == COMMIT else f"{name}@{commit}")


class _Handler(BaseHTTPRequestHandler):
    models: Path
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.asked.append(self.path)
        for name, (status, code) in REFUSALS.items():
            if f"/{name}" in self.path:
                return self._refuse(status, code)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._about(parts, with_body)
        file = _folder(self.models, parts[1], parts[3]) / "/".join(parts[4:])
        return (
            self._send(file.read_bytes(), with_body, _commit(self.models, parts[1], parts[3]))
            if file.is_file()
            else self._refuse(404, "EntryNotFound")
        )

    def _about(self, parts: list[str], with_body: bool) -> None:
        """`/api/models/<organisation>/<folder>/revision/<revision>`, or `tree` instead of `revision`."""
        if not (self.models / parts[3]).is_dir():
            return self._refuse(404, "RepoNotFound")
        folder = _folder(self.models, parts[3], parts[5])
        if not folder.is_dir():
            return self._refuse(404, "RevisionNotFound")
        tree, commit = _tree(folder), _commit(self.models, parts[3], parts[5])
        files = [{"rfilename": entry["path"]} for entry in tree]
        info = {"id": f"{parts[2]}/{parts[3]}", "sha": commit, "siblings": files, "private": False}
        return self._send(json.dumps(tree if parts[4] == "tree" else info).encode(), with_body, commit)

    def _send(self, content: bytes, with_body: bool, commit: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()


def _tree(folder: Path) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": str(path.relative_to(folder)),
            "size": path.stat().st_size,
            "oid": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


@contextmanager
def serving(models: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve each folder in `models` as the hub's model `org/<folder>`, whose main branch `move_main` moves.

    Gives the address, and the paths asked for so far.
    """
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"models": models, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
