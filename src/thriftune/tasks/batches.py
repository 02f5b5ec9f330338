"""Ragged rows into padded batches: cutting by a token budget, sorting by length, padding."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from thriftune.tasks.base import Encoded

READ_BATCH_TOKENS = 4096  # padded tokens a batch when reading without training


def micro_batches(
    lengths: NDArray[np.int64], rows: NDArray[np.int64], token_budget: int | None
) -> list[NDArray[np.int64]]:
    """Rows cut into micro-batches of at most `token_budget` padded tokens each (one row at the least)."""
    if token_budget is None or len(rows) * int(lengths[rows].max(initial=0)) <= token_budget:
        return [rows]
    by_length = rows[np.argsort(lengths[rows], kind="stable")]
    parts: list[NDArray[np.int64]] = []
    start = 0
    for end in range(1, len(by_length) + 1):
        if end == len(by_length) or (end - start + 1) * int(lengths[by_length[end]]) > token_budget:
            parts.append(by_length[start:end])
            start = end
    return parts


def sorted_batches(lengths: NDArray[np.int64], token_budget: int = READ_BATCH_TOKENS) -> list[NDArray[np.int64]]:
    """All rows, longest first, in batches of at most `token_budget` padded tokens, for reading without training."""
    if len(lengths) == 0:
        return []
    return micro_batches(lengths, np.argsort(lengths, kind="stable"), token_budget)[::-1]


def padded_tokens(lengths: NDArray[np.int64], parts: list[NDArray[np.int64]]) -> int:
    """How many positions the batches compute, padding included."""
    return sum(len(part) * int(lengths[part].max()) for part in parts)


def pad(
    flat: NDArray[np.int32] | NDArray[np.int64],
    encoded: Encoded,
    rows: NDArray[np.int64],
    fill: int,
    side: str = "right",
) -> torch.Tensor:
    """Rows of a ragged array as one (rows, longest) int64 tensor, filled on the `right` or the `left`."""
    places = _places(encoded, rows, side)
    table = np.full(places.shape, fill, dtype=np.int64)
    table[places] = np.concatenate([flat[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows])
    return torch.from_numpy(table)


def attention_mask(encoded: Encoded, rows: NDArray[np.int64], side: str = "right") -> torch.Tensor:
    """(rows, longest) int64: 1 where a token stands, 0 where padding does."""
    return torch.from_numpy(_places(encoded, rows, side).astype(np.int64))


def _places(encoded: Encoded, rows: NDArray[np.int64], side: str) -> NDArray[np.bool_]:
    """(rows, longest): where the tokens stand."""
    lengths = encoded.lengths[rows]
    columns = np.arange(int(lengths.max()))[None, :]
    start = columns.shape[1] - lengths[:, None] if side == "left" else np.zeros_like(lengths)[:, None]
    return np.asarray((columns >= start) & (columns < start + lengths[:, None]))


def ragged(sequences: list[list[int]], limit: int) -> tuple[NDArray[np.int32], NDArray[np.int64], int, int]:
    """Token lists as flat array and offsets, each cut to `limit`; and how many tokens and rows were cut."""
    kept = [sequence[:limit] for sequence in sequences]
    cut_tokens = sum(len(whole) - len(part) for whole, part in zip(sequences, kept, strict=True))
    cut_rows = sum(len(whole) > limit for whole in sequences)
    offsets = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in kept], out=offsets[1:])
    flat = np.fromiter((token for part in kept for token in part), dtype=np.int32, count=int(offsets[-1]))
    return flat, offsets, cut_tokens, cut_rows


def take(encoded: Encoded, rows: NDArray[np.int64]) -> Encoded:
    """Some of the rows, in the order given."""
    spans = [slice(int(encoded.offsets[row]), int(encoded.offsets[row + 1])) for row in rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(encoded.lengths[rows], out=offsets[1:])
    by_row = len(encoded.labels) == len(encoded)
    labels = encoded.labels[rows] if by_row else np.concatenate([encoded.labels[span] for span in spans])
    parts = None if encoded.parts is None else encoded.parts[rows]
    tokens = np.concatenate([encoded.tokens[span] for span in spans])
    targets = tuple(encoded.targets[row] for row in rows) if encoded.targets else ()
    facts = {name: values[rows] for name, values in encoded.facts.items()}
    return Encoded(tokens, offsets, labels, encoded.weights[rows], targets=targets, parts=parts, facts=facts)
