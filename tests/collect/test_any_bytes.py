"""Whatever bytes a file holds: it is read, every row accounted for, or refused with a message; never anything else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thriftune.collect.collect import read_source
from thriftune.collect.infer import infer
from thriftune.collect.options import CollectOptions, Source
from thriftune.errors import BadInput

KINDS = [".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet"]
MARKS = b'" "" \' \\ , ; | [ ] { } \0 \xff\xfe \xef\xbb\xbf 1e999 NaN null \\ud83d \xe9 a PAR1'.split()
TELLING = [b"text,label\n", b"text;label\r\n", b'{"text": "a", "label": 1}\n', b"\t", b"\n", b"\r", b" ", *MARKS]
PIECES = st.lists(st.sampled_from(TELLING) | st.binary(max_size=6), max_size=25).map(b"".join)
SOURCES = [{"text": "text", "label": "label"}, {"messages": "text"}]
LENIENT = CollectOptions(bad_row_limit=1, no_value_limit=1)


@given(PIECES | PIECES.map(lambda rest: b"text,label\n" + rest), st.sampled_from(KINDS), st.sampled_from(SOURCES))
@settings(max_examples=300, deadline=None)
def test_any_file_is_read_or_refused(data: bytes, kind: str, columns: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{kind}"
        path.write_bytes(data)
        try:
            frame, collected = read_source(Source(file=path.name, **columns), LENIENT, Path(folder))
        except BadInput as refusal:
            assert path.name in refusal.where
            assert refusal.what and refusal.found and refusal.expected and refusal.way_out
        else:
            assert collected.rows_in == collected.kept + sum(collected.dropped.values())
            assert collected.kept == len(frame)
        try:
            infer(path)
        except BadInput as refusal:
            assert refusal.way_out


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"text": [f"text {n}" for n in range(30)], "label": ["x", "y"] * 15})
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    elif kind == "csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    whole = path.read_bytes()
    source = Source(file=path.name, text="text", label="label")
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            _, collected = read_source(source, LENIENT, tmp_path)
        except BadInput:
            continue
        assert collected.rows_in == collected.kept + sum(collected.dropped.values())
