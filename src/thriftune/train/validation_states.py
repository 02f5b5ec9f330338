"""What the frozen first layers answer for the validation split, kept from one validation to the next.

Validations are always of the same rows in the same batches, so that the first one fills the memory as it goes: there is
no pass for it alone. The states lie in a file without a name, which is gone with the process: after a crash the next
validation fills it again, and finds the same figures, since what is given is bit for bit what would be computed.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch


class ValidationStates:
    """The kept states of whole batches; a `models.prefix.Memory`.

    Args:
        folder: on the disk that is to hold them; it is made where it is missing.
        most_bytes: that they may take; batches beyond that are computed each time.
        device: where they are asked for.
    """

    def __init__(self, folder: Path, most_bytes: float, device: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed with the object
        self._most, self._device = most_bytes, device
        self._kept: dict[bytes, tuple[int, tuple[int, ...], torch.dtype]] = {}
        self._end = 0

    def recall(self, key: bytes) -> torch.Tensor | None:
        """The states of this batch, if they are kept."""
        if key not in self._kept:
            return None
        start, shape, dtype = self._kept[key]
        states = np.memmap(self._file, dtype=np.float32, mode="c", offset=start, shape=shape)
        return torch.from_numpy(states).to(self._device, dtype)

    def keep(self, key: bytes, states: torch.Tensor) -> None:
        """Keep them, if there is room."""
        flat = states.detach().float().cpu().contiguous().numpy()
        if self._end + flat.nbytes > self._most:
            return
        self._file.seek(self._end)
        self._file.write(flat.tobytes())
        self._file.flush()
        self._kept[key] = self._end, flat.shape, states.dtype
        self._end += flat.nbytes

    def clear(self) -> None:
        """Forget all of them, and give their room back."""
        self._kept.clear()
        self._file.truncate(0)
        self._end = 0


def validations_to_pay(compute: float, keep: float) -> float:
    """How many validations it takes until keeping the states is quicker than computing them each time.

    Args:
        compute: seconds that the first layers take in one validation.
        keep: seconds to write their states once, or to read them.
    """
    saved = compute - keep
    return math.inf if saved <= 0 else 1 + keep / saved
