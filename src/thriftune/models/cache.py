"""The user's cache: folders that are whole or absent, and small facts that are remembered about files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_dir

from thriftune.errors import BadInput

CACHE_VARIABLE = "THRIFTUNE_CACHE"
_CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    """The folder named by `THRIFTUNE_CACHE`, or else the user's cache folder for Thriftune."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(user_cache_dir("thriftune"))


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder `target`, built on the first call that needs it.

    It is built under a temporary name, synced and renamed, so that it is whole or absent whatever happens. Two
    processes that want it at once take turns, and the second finds it there. What a killed process left half
    built is swept by the next.

    Args:
        target: the folder that must exist.
        build: fills the empty folder that it is given.

    Raises:
        BadInput: the cache cannot be written (read-only, full); whatever `build` raises.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _build(target, build)
    except OSError as error:
        raise BadInput(
            "the cache cannot be written",
            where=str(error.filename or target),
            found=error.strerror or str(error),
            expected="a folder that can be written, with room for the models",
            way_out=f"free some space or its permissions, or set {CACHE_VARIABLE} to another folder",
        ) from error
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}.partial-"
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        build(partial)
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        partial.rename(target)
        _sync(target.parent)
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(files: Iterable[Path]) -> str:
    """Tells whether files are unchanged without reading them: a hash of names, sizes, times and inodes.

    The change time is part of it, which no program can set back, unlike the modification time.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        entry = path.stat()
        facts = (str(path), entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino)
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def remembered(cache: Path, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `compute` gave the last time for this key (a name for a file), or its result now, kept for next time.

    Args:
        cache: the user's cache.
        key: 64 hexadecimal digits that change whenever the result may.
        compute: gives a JSON object.
    """
    memo = cache / "facts" / f"{key}.json"
    try:
        found = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        found = None  # none yet, or none that can be read: it is worked out again
    if isinstance(found, dict):
        return found
    computed = compute()
    _write_whole(memo, json.dumps(computed))
    return computed


def _write_whole(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError:
        return  # a memo saves time and nothing else: in a cache that cannot be written it is worked out again
