"""Readers of source files: each row is read, or counted as bad with its line number and the reason."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from thriftune.collect.readers.rows import BadRow, BadRows, Batch, Reader, shorten
from thriftune.errors import BadInput

__all__ = [
    "BATCH_ROWS",
    "BadRow",
    "BadRows",
    "Batch",
    "Reader",
    "check_file",
    "missing_column",
    "open_source",
    "shorten",
]

DELIMITED = (".csv", ".tsv", ".txt")
JSON = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
_KINDS = f"a file that ends in {', '.join((*DELIMITED, *JSON, *PARQUET))}"


def open_source(
    path: Path, file: str, encoding: str | None = None, delimiter: str | None = None, expected: Sequence[str] = ()
) -> Reader:
    """Open a source file with the reader for its kind.

    Args:
        path: where it is.
        file: its name for messages, as the user wrote it.
        encoding: as the user states it, or None to detect it.
        delimiter: as the user states it, or None to detect it.
        expected: columns it should have, which helps to tell CSV dialects apart.

    Raises:
        BadInput: it is missing, a folder, unreadable, empty, of an unknown kind or damaged.
    """
    check_file(path, file)
    suffix = path.suffix.lower()
    if suffix in DELIMITED:
        from thriftune.collect.readers.delimited import DelimitedReader

        return DelimitedReader.open(path, file, encoding, delimiter, expected)
    if suffix in JSON:
        from thriftune.collect.readers.json_records import open_json

        return open_json(path, file, encoding)
    from thriftune.collect.readers.parquet import ParquetReader

    return ParquetReader.open(path, file)


def check_file(path: Path, file: str) -> None:
    """Raise `BadInput` unless there is a file of a known kind, not empty, that may be read."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise _unusable("the file does not exist", file, "nothing at that path", "check name and folder") from None
    except OSError as error:
        raise _unusable("the file cannot be read", file, str(error.strerror), "change its permissions") from None
    suffix = path.suffix.lower()
    if stat.S_ISDIR(status.st_mode):
        raise _unusable("this is a folder", file, "a folder", "name one file in it")
    if suffix not in DELIMITED + JSON + PARQUET:
        raise _unusable("the kind of file is unknown", file, f"the ending {suffix!r}", "convert or rename it")
    if status.st_size == 0:
        raise _unusable("the file is empty", file, "0 bytes", "export it again, with a header and rows")


def _unusable(what: str, file: str, found: str, way_out: str) -> BadInput:
    return BadInput(what, file, found, _KINDS, way_out)
