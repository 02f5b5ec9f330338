"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from thriftune.collect.readers.rows import BATCH_ROWS, BadRows, Batch, missing_column
from thriftune.errors import BadInput

_MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetReader:
    """A Parquet file; a row is a record, counted from 1."""

    path: Path
    file: str
    columns: list[str]
    most_rows: int
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, file: str) -> ParquetReader:
        """Read the file's schema and number of rows.

        Raises:
            BadInput: it is not a whole Parquet file.
        """
        _check_ends(path, file)
        with _explained(file):
            columns = list(pl.read_parquet_schema(path))
            rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
        return cls(path, file, columns, rows)

    def batches(self, wanted: Sequence[str], bad: BadRows) -> Iterator[Batch]:
        """The wanted columns, batch by batch; see `Reader`."""
        for name in wanted:
            if name not in self.columns:
                raise missing_column(self.file, name, self.columns)
        with _explained(self.file):
            frame = pl.read_parquet(self.path, columns=list(dict.fromkeys(wanted)))
        first = 1
        for part in frame.iter_slices(BATCH_ROWS):
            yield Batch(list(range(first, first + len(part))), {name: part[name].to_list() for name in wanted})
            first += len(part)


def _check_ends(path: Path, file: str) -> None:
    """Raise `BadInput` for a file that was cut short or is none: `PAR1` at both ends, and room for its footer."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(max(0, size - 8))
        end = stream.read()
    footer_bytes = int.from_bytes(end[:4], "little")
    if size < 12 or start != _MAGIC or end[4:] != _MAGIC or footer_bytes > size - 12:
        raise _damaged(file, f"{size} bytes that do not start and end as Parquet does")


@contextmanager
def _explained(file: str) -> Iterator[None]:
    """Turn what polars says of a damaged file into an error; on some damage it panics, which is no `Exception`."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _damaged(file, str(error).splitlines()[0]) from None


def _damaged(file: str, found: str) -> BadInput:
    return BadInput(
        what="the Parquet file cannot be read",
        where=file,
        found=found,
        expected="a whole Parquet file",
        way_out="write it again, or give the rows as CSV or JSON Lines",
    )
