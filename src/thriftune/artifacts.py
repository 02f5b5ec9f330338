"""Artifacts: folders that are there whole or not at all, found by their recipe and known by their content.

An artifact has two hashes. Its recipe key (inputs' content, options, stage version, library versions that matter)
finds it; the content hash of what came out feeds the stages downstream. Budgets, deadlines and prices are no part of
a recipe: raising a budget retrains nothing that is done.

A folder is written under a temporary name, synced to the disk, renamed, then recorded in the database.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select

from thriftune.clock import Clock
from thriftune.errors import BadInput
from thriftune.faults import crash_point
from thriftune.processes import Life, ProcessName, this_process
from thriftune.store import Store
from thriftune.store.tables import artifacts

MANIFEST = "manifest.json"
KEY_BYTES = 16
CONTENT_BYTES = 32
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotWhole(Exception):
    """A folder is not what its manifest says, or has none; the text says what is wrong."""


@dataclass(frozen=True)
class FileEntry:
    """A file of a folder: its name within it, size, and BLAKE2b hash."""

    name: str
    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Manifest:
    """What a whole folder holds.

    Args:
        files: every file but the manifest, by name.
        about: what the writer noted, plain JSON values.
        content_hash: over the files' names and hashes.
    """

    files: tuple[FileEntry, ...]
    about: dict[str, Any]
    content_hash: str


@dataclass(frozen=True)
class Artifact:
    """A stage's output.

    Args:
        stage: the stage's name.
        key: its recipe key.
        folder: where it lies.
        content_hash: of its files; the input of the stages downstream.
        reused: it was there already.
        finding: why an earlier one could not be used and was built again; empty when there was none.
    """

    stage: str
    key: str
    folder: Path
    content_hash: str
    reused: bool
    finding: str = ""


def recipe_key(
    stage: str, version: int | str, inputs: Mapping[str, str], options: Any, libraries: Mapping[str, str]
) -> str:
    """The key under which a stage's output is found: equal recipes have equal keys, whatever the order of their parts.

    Args:
        stage: the stage's name.
        version: of the stage's code; raised when it would give something else.
        inputs: content hash of each input, by name.
        options: plain JSON values.
        libraries: version of each library that the result depends on.

    Raises:
        TypeError: the options are not plain JSON values.
        ValueError: they hold a NaN or an infinity.
    """
    recipe = {
        "stage": stage,
        "version": str(version),
        "inputs": dict(inputs),
        "options": options,
        "libraries": dict(libraries),
    }
    canonical = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake2b(canonical.encode(), digest_size=KEY_BYTES).hexdigest()


class ArtifactStore:
    """The artifacts of a project under `root/artifacts/STAGE/KEY`.

    Args:
        root: the project's state folder.
        store: where whole artifacts are recorded.
        clock: dates the records.
        project: the project's name.
    """

    def __init__(self, root: Path, store: Store, clock: Clock, project: str) -> None:
        self._root = root / "artifacts"
        self._store = store
        self._clock = clock
        self._project = project
        self._hashed: set[Path] = set()  # folders whose files this process has hashed

    def folder(self, stage: str, key: str) -> Path:
        """Where the artifact lies, or would lie."""
        return self._root / stage / key

    def build(self, stage: str, key: str, recipe: Any, write: Callable[[Path], None]) -> Artifact:
        """The artifact of a recipe: the one that is there and whole, or a new one.

        Args:
            stage: the stage's name.
            key: `recipe_key` of the recipe.
            recipe: plain JSON values, kept with the artifact for people to read.
            write: fills an empty folder; what it raises passes through, and nothing is left behind.

        Raises:
            BadInput: the disk is full, or the folder cannot be written.
        """
        found, finding = self._existing(stage, key, recipe)
        if found is not None:
            return found
        target = self.folder(stage, key)
        sweep(target.parent)
        if target.exists():
            remove_folder(target)
        try:
            manifest = write_folder(
                target, write, crash="artifact", about={"stage": stage, "key": key, "recipe": recipe}, replace=False
            )
        except FileExistsError:  # another process was faster; a recipe has one output, so theirs will do
            manifest = read_whole(target)
        self._hashed.add(target)
        self._record(stage, key, recipe, manifest)
        crash_point("artifact.recorded")
        return Artifact(stage, key, target, manifest.content_hash, reused=False, finding=finding)

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact of a recipe if it is there and whole."""
        return self._existing(stage, key, None)[0]

    def _existing(self, stage: str, key: str, recipe: Any) -> tuple[Artifact | None, str]:
        """The artifact that is there and whole, or None and what is wrong with the one that is there."""
        target = self.folder(stage, key)
        recorded = self._recorded_hash(stage, key)
        if recorded is None and not target.exists():
            return None, ""
        try:
            manifest = read_whole(target, hashes=target not in self._hashed)
            if recorded not in (None, manifest.content_hash):
                raise NotWhole(f"its content is {manifest.content_hash}, recorded was {recorded}")
        except NotWhole as wrong:
            self._forget(stage, key)
            return None, f"{stage}/{key}: {wrong}"
        self._hashed.add(target)
        if recorded is None:
            self._record(stage, key, manifest.about.get("recipe", recipe), manifest)
        return Artifact(stage, key, target, manifest.content_hash, reused=True), ""

    def _recorded_hash(self, stage: str, key: str) -> str | None:
        with self._store.read() as connection:
            hash_ = connection.execute(select(artifacts.c.content_hash).where(*self._row(stage, key))).scalar()
        return None if hash_ is None else str(hash_)

    def _record(self, stage: str, key: str, recipe: Any, manifest: Manifest) -> None:
        with self._store.begin() as transaction:
            transaction.execute(delete(artifacts).where(*self._row(stage, key)))
            transaction.execute(
                insert(artifacts).values(
                    project=self._project,
                    stage=stage,
                    key=key,
                    content_hash=manifest.content_hash,
                    bytes=sum(entry.bytes for entry in manifest.files),
                    recipe=json.dumps(recipe),
                    recorded_at=self._clock.now(),
                )
            )

    def _forget(self, stage: str, key: str) -> None:
        with self._store.begin() as transaction:
            transaction.execute(delete(artifacts).where(*self._row(stage, key)))

    def _row(self, stage: str, key: str) -> tuple[Any, ...]:
        return artifacts.c.project == self._project, artifacts.c.stage == stage, artifacts.c.key == key


def write_folder(
    target: Path,
    write: Callable[[Path], None],
    crash: str = "artifact",
    about: Mapping[str, Any] | None = None,
    replace: bool = True,
) -> Manifest:
    """Make a folder that is there whole, with its manifest and safe on the disk, or not at all.

    Args:
        target: where it shall be; its parent is made where needed.
        write: fills an empty folder; what it raises passes through, and nothing is left behind.
        crash: the first half of the crash points' names, `artifact` or `checkpoint`.
        about: plain JSON values to keep in the manifest.
        replace: put it in the place of one that is there; for the instant of that, neither is.

    Raises:
        FileExistsError: the target is there and not to be replaced.
        BadInput: the disk is full, or the folder cannot be written.
    """
    temporary = _temporary(target)
    with explained(target):
        temporary.mkdir(parents=True)
        try:
            crash_point(f"{crash}.started")
            write(temporary)
            crash_point(f"{crash}.written")
            manifest = _seal(temporary, dict(about or {}))
            crash_point(f"{crash}.synced")
            _rename(temporary, target, replace)
        except BaseException:
            remove_folder(temporary)
            raise
        _sync_folder(target.parent)
    crash_point(f"{crash}.renamed")
    return manifest


def write_file_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it holds the old content or the new at every instant, and the new when this returns.

    Raises:
        BadInput: the disk is full, or the folder cannot be written.
    """
    temporary = _temporary(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def read_manifest(folder: Path) -> Manifest:
    """A folder's manifest, checked against its own content hash.

    Raises:
        NotWhole: it is missing, cannot be read, or does not hold together.
    """
    try:
        written = json.loads((folder / MANIFEST).read_bytes())
        files = tuple(FileEntry(entry["name"], entry["bytes"], entry["blake2b"]) for entry in written["files"])
        manifest = Manifest(files, written["about"], written["content_hash"])
    except FileNotFoundError:
        raise NotWhole("it has no manifest") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise NotWhole(f"its manifest cannot be read ({type(error).__name__})") from None
    if content_hash(files) != manifest.content_hash:
        raise NotWhole("its manifest does not match its own content hash")
    return manifest


def read_whole(folder: Path, hashes: bool = True) -> Manifest:
    """The manifest of a folder that holds exactly the files that it names, in their sizes and, if asked, hashes.

    Raises:
        NotWhole: it does not.
    """
    if not folder.is_dir():
        raise NotWhole("its folder is missing")
    manifest = read_manifest(folder)
    there = {name: path for name, path in _files(folder) if name != MANIFEST}
    named = {entry.name for entry in manifest.files}
    if missing := sorted(named - set(there)):
        raise NotWhole(f"{missing[0]} is missing")
    if extra := sorted(set(there) - named):
        raise NotWhole(f"{extra[0]} does not belong to it")
    for entry in manifest.files:
        if (size := there[entry.name].stat().st_size) != entry.bytes:
            raise NotWhole(f"{entry.name} has {size} bytes, not {entry.bytes}")
    if hashes:
        for entry in manifest.files:
            if _hash_file(there[entry.name]) != entry.blake2b:
                raise NotWhole(f"{entry.name} has another content than was written")
    return manifest


def content_hash(files: tuple[FileEntry, ...]) -> str:
    """The hash of a folder's content: over the names and hashes of its files, in the order of their names."""
    listed = json.dumps(sorted((entry.name, entry.blake2b) for entry in files))
    return blake2b(listed.encode(), digest_size=CONTENT_BYTES).hexdigest()


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes left half-written in a folder; what a live one is writing stays.

    Returns:
        what was removed.
    """
    if not folder.is_dir():
        return []
    swept = [path for path in sorted(folder.glob(".*.tmp")) if _writer_is_gone(path)]
    for path in swept:
        remove_folder(path)
    return swept


def remove_folder(path: Path) -> None:
    """Remove a folder or a file that may be gone already; a folder loses its name first, so it is never half there."""
    if path.is_dir() and not path.name.endswith(".tmp"):
        hidden = _temporary(path)
        path.rename(hidden)
        path = hidden
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk and a missing permission into an error that a person can act on."""
    try:
        yield
    except Exception as error:
        number = _error_number(error, path)
        if number in NO_ROOM:
            raise BadInput(
                "the disk is full",
                str(path),
                os.strerror(number),
                "room for the file",
                "free some space, then run again",
            ) from error
        if number in NOT_ALLOWED:
            raise BadInput(
                "this cannot be written", str(path), os.strerror(number), "a folder to write to", "make it writable"
            ) from error
        raise


def _error_number(error: Exception, path: Path) -> int:
    """The system's number of what hindered writing at `path`; 0 for any other error."""
    if isinstance(error, OSError):
        elsewhere = isinstance(error.filename, str) and not Path(error.filename).is_relative_to(path.parent)
        return 0 if elsewhere else error.errno or 0
    # Writers in other languages (safetensors, polars) pass the system's text on, not its number.
    return errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else 0


def _seal(folder: Path, about: dict[str, Any]) -> Manifest:
    """Write the manifest, and put every file and folder safely on the disk."""
    files = tuple(FileEntry(name, path.stat().st_size, _hash_file(path)) for name, path in _files(folder))
    manifest = Manifest(files, about, content_hash(files))
    written = {
        "content_hash": manifest.content_hash,
        "about": about,
        "files": [{"name": entry.name, "bytes": entry.bytes, "blake2b": entry.blake2b} for entry in files],
    }
    (folder / MANIFEST).write_text(json.dumps(written, indent=1, allow_nan=False))
    for _, path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for place in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        _sync_folder(place)
    return manifest


def _rename(temporary: Path, target: Path, replace: bool) -> None:
    if target.exists():
        if not replace:
            raise FileExistsError(f"{target} is there already")
        remove_folder(target)
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(f"{target} is there already") from None
        raise


def _files(folder: Path) -> list[tuple[str, Path]]:
    """The regular files under a folder with their names in it, in the order of their names."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise NotWhole(f"{name} is a link; a folder is kept whole only with its files in it")
        if not path.is_dir():
            found.append((name, path))
    return sorted(found)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=CONTENT_BYTES)).hexdigest()


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _temporary(target: Path) -> Path:
    """A hidden name beside the target that tells who writes it and that no other call will choose."""
    writer = this_process()
    place = blake2b(writer.place.encode(), digest_size=4).hexdigest()
    return target.parent / f".{target.name}.{writer.pid}-{writer.started}-{place}-{os.urandom(4).hex()}.tmp"


def _writer_is_gone(path: Path) -> bool:
    me = this_process()
    try:
        pid, started, place, _ = path.name.removesuffix(".tmp").rpartition(".")[2].split("-")
        number = int(pid)
    except ValueError:
        return False  # no name of ours: not ours to remove
    if place != blake2b(me.place.encode(), digest_size=4).hexdigest():
        return True
    return ProcessName(number, started, me.place).life() is Life.DEAD
