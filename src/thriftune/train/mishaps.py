"""What can go wrong in an update, and what is done about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thriftune.errors import BadInput
from thriftune.memory import give_back_freed_memory, limit_bytes, resident_bytes
from thriftune.tasks.base import Encoded
from thriftune.tasks.batches import padded_tokens

NAMED_ROWS = 8  # of an update, in a message
NEARLY_FULL = 0.92  # of the memory's limit: where the kernel kills, nothing can be done any more
WORTH_CUTTING = 0.05  # of the limit: what updates must take for smaller ones to help


class NotANumber(BadInput):
    """The training loss is no longer a number."""


def checked_loss(loss: float, step: int, encoded: Encoded, rows: NDArray[np.int64], rate: float) -> float:
    """The loss of the update after `step` done ones.

    Raises:
        BadInput: it is no number; the message names the rows.
    """
    if math.isfinite(loss):
        return loss
    named = rows[:NAMED_ROWS].tolist()
    ids = named if encoded.ids is None else [encoded.ids[row] for row in named]
    more = f" and {len(rows) - len(named)} more" if len(rows) > len(named) else ""
    raise NotANumber(
        "the training loss is no longer a number",
        where=f"update {step + 1}, training rows {', '.join(map(str, ids))}{more}",
        found=f"loss {loss}",
        expected="a finite loss",
        way_out=f"look at these rows, or lower train.learning_rate (now {rate}); the last checkpoint is kept",
    )


def half_of(lengths: NDArray[np.int64], parts: Sequence[NDArray[np.int64]], packed: bool = False) -> int:
    """Half the computed tokens of the largest of these micro-batches, which did not fit into memory.

    Raises:
        BadInput: every row is a micro-batch of its own already.
    """
    if all(len(part) == 1 for part in parts):
        raise BadInput(
            "the memory does not hold one row's training",
            where="train.max_tokens",
            found=f"a row of {max(int(lengths[part].max()) for part in parts):,} tokens",
            expected="a row that fits into memory",
            way_out="lower train.max_tokens, take a smaller model, adapters (train.method: lora) or a larger machine",
        )
    return max(1, max(padded_tokens(lengths, [part], packed) for part in parts if len(part) > 1) // 2)


def nearly_full(most: int, parts: Sequence[NDArray[np.int64]]) -> bool:
    """Whether memory came close to its limit, and smaller micro-batches would help.

    Args:
        most: the most bytes that were resident while updates were computed.
        parts: the micro-batches of one of them.
    """
    limit = limit_bytes()
    if most < NEARLY_FULL * limit or all(len(part) == 1 for part in parts):
        return False
    give_back_freed_memory()
    return most - resident_bytes() > WORTH_CUTTING * limit
