"""The frozen-prefix cache: what the untrained first layers answer for each training row, computed once and kept.

While the first k layers are frozen their output for a row is the same in every epoch, so that from the second epoch on
they need not run at all. The states lie on the disk in fp32, memory-mapped, token after token as the rows are encoded.
They are found again by what determines them; a folder that is not whole, or whose content is not what was written, is
made anew and never read. AutoFreeze (Liu et al., arXiv 2102.01386) is the nearest that we know of in the literature.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from thriftune.artifacts import NotWhole, read_manifest, read_whole, remove_folder, sweep, write_folder
from thriftune.models.prefix import Prefix
from thriftune.tasks.base import Batch, Encoded, Task
from thriftune.tasks.batches import sorted_batches
from thriftune.train.machine import Machine

FOLDER = "prefix"  # in the project's state folder
STATES = "states.f32"
BYTES = 4  # of a number
UNIT_SECONDS = 1.0  # states are computed in metered units of about this long

Unit = Callable[[str, float], AbstractContextManager[object]]
"""A metered unit: what it is, and the longest that it may take in seconds."""


@dataclass(frozen=True)
class PrefixCache:
    """The kept states of one set of rows.

    Args:
        prefix: of the model that is trained.
        states_of: a row's (tokens, width) fp32 states.
    """

    prefix: Prefix
    states_of: Callable[[int], NDArray[np.float32]]

    @contextmanager
    def given(self, rows: NDArray[np.int64], batch: Batch) -> Iterator[None]:
        """Inside, the model takes the states of these rows for what its prefix answers.

        Args:
            rows: row ids, in the batch's order.
            batch: its `attention_mask` says where a row's tokens stand.
        """
        flat = np.concatenate([self.states_of(int(row)) for row in rows])
        mask = batch["attention_mask"].bool()
        padded = torch.zeros(*mask.shape, flat.shape[1], device=mask.device)
        padded[mask] = torch.from_numpy(flat).to(mask.device)
        with self.prefix.given(padded):
            yield


@dataclass(frozen=True)
class Needs:
    """What determines the states, besides the model's own weights on the disk."""

    task: Task
    encoded: Encoded
    machine: Machine
    depth: int

    @property
    def key(self) -> str:
        """Names a folder of states: model, depth, arithmetic, library versions, and the very tokens."""
        about = self.task.describe()
        facts = {
            "model": about["model"],
            "depth": self.depth,
            "precision": self.machine.precision,
            "device": self.machine.device.split(":")[0],
            "threads": self.machine.threads,
            "batch": self.machine.read_batch_tokens,
            "versions": [torch.__version__, transformers.__version__],
        }
        digest = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
        digest.update(self.encoded.tokens.tobytes())
        digest.update(self.encoded.offsets.tobytes())
        return digest.hexdigest()


def states_bytes(encoded: Encoded, width: int) -> int:
    """How much the states of these rows take on the disk."""
    return int(encoded.offsets[-1]) * width * BYTES


def open_or_build(
    root: Path,
    model: torch.nn.Module,
    prefix: Prefix,
    needs: Needs,
    seconds_per_token: float,
    most_bytes: float,
    unit: Unit,
) -> PrefixCache:
    """The states of these rows: as they were kept, or computed now, in metered units.

    Args:
        root: the folder that holds one folder for each set of states.
        model: whose prefix it is.
        prefix: of the model.
        needs: what determines them.
        seconds_per_token: that computing them takes, from the probe.
        most_bytes: what all folders together may take; those whose states took least time a byte go first.
        unit: reserves and meters.

    Raises:
        OutOfBudget: money or time do not hold the next unit; nothing is kept then.
        BadInput: the disk is full.
    """
    folder = root / needs.key
    sweep(root)
    try:
        about = read_whole(folder).about
    except NotWhole:
        began = time.monotonic()
        width = _width(model, prefix, needs)
        _make_room(root, states_bytes(needs.encoded, width), most_bytes, needs.key)

        def write(target: Path) -> None:
            _write_states(target / STATES, model, prefix, needs, width, seconds_per_token, unit)

        about = {"width": width, "seconds": time.monotonic() - began}
        write_folder(folder, write, about=about)
    offsets = needs.encoded.offsets
    shape = (int(offsets[-1]), int(about["width"]))
    states = np.memmap(folder / STATES, dtype=np.float32, mode="r", shape=shape)
    return PrefixCache(prefix, lambda row: states[offsets[row] : offsets[row + 1]])


def _write_states(
    path: Path,
    model: torch.nn.Module,
    prefix: Prefix,
    needs: Needs,
    width: int,
    seconds_per_token: float,
    unit: Unit,
) -> None:
    encoded, machine = needs.encoded, needs.machine
    batches = sorted_batches(encoded.lengths, machine.read_batch_tokens)
    shape = (int(encoded.offsets[-1]), width)
    states = np.memmap(path, dtype=np.float32, mode="w+", shape=shape)
    slowest = seconds_per_token
    while batches:
        tokens = 0
        some: list[NDArray[np.int64]] = []
        while batches and (not some or tokens * slowest < UNIT_SECONDS):
            some.append(batches.pop())
            tokens += len(some[-1]) * int(encoded.lengths[some[-1]].max())
        began = time.monotonic()
        with unit("prefix states", 1.5 * tokens * slowest + 0.25):
            for rows in some:
                _put(states, encoded, rows, prefix_states(model, prefix, needs, rows))
        slowest = max(slowest, (time.monotonic() - began) / tokens)
    states.flush()


def _put(states: NDArray[np.float32], encoded: Encoded, rows: NDArray[np.int64], flat: NDArray[np.float32]) -> None:
    at = 0
    for row in rows:
        start, end = int(encoded.offsets[row]), int(encoded.offsets[row + 1])
        states[start:end] = flat[at : at + end - start]
        at += end - start


def prefix_states(model: torch.nn.Module, prefix: Prefix, needs: Needs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(tokens of these rows, width): what the prefix answers for them, row after row, without the padding."""
    machine = needs.machine
    batch = {name: tensor.to(machine.device) for name, tensor in needs.task.batch(needs.encoded, rows).items()}
    with machine.autocast():
        answer = prefix.answer(lambda: needs.task.loss(model, batch))
    flat: NDArray[np.float32] = answer[batch["attention_mask"].bool()].float().cpu().numpy()
    return flat


def _width(model: torch.nn.Module, prefix: Prefix, needs: Needs) -> int:
    shortest = needs.encoded.lengths.argmin()
    return int(prefix_states(model, prefix, needs, np.array([shortest]))[0].size)


def _make_room(root: Path, wanted: int, most_bytes: float, key: str) -> None:
    """Remove kept states, those that took least time a byte first, until `wanted` more bytes are within the bound."""
    kept = []
    for folder in root.iterdir() if root.is_dir() else ():
        try:
            manifest = read_manifest(folder)
        except NotWhole:
            if folder.name == key:
                remove_folder(folder)
            continue
        size = sum(entry.bytes for entry in manifest.files)
        kept.append((float(manifest.about.get("seconds", 0.0)) / max(1, size), size, folder))
    total = sum(size for _, size, _ in kept)
    for _, size, folder in sorted(kept, key=lambda entry: entry[0]):
        if total + wanted <= most_bytes:
            return
        remove_folder(folder)
        total -= size
