"""The frozen-prefix cache: what the untrained first layers answer for each training row, computed once and kept.

While the first k layers are frozen their output for a row is the same in every epoch, so that from the second epoch on
they need not run at all. The states lie on the disk, memory-mapped, token after token as the rows are encoded: in fp32,
or rounded to fp16 where the project file says so.
They are found again by what determines them; a folder that is not whole, or whose content is not what was written, is
made anew and never read. AutoFreeze (Liu et al., arXiv 2102.01386) is the nearest that we know of in the literature.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from thriftune.artifacts import NotWhole, read_manifest, read_whole, remove_folder, sweep, write_folder
from thriftune.errors import BadInput
from thriftune.models.prefix import Prefix
from thriftune.tasks.base import Batch, Encoded, Task
from thriftune.tasks.batches import sorted_batches
from thriftune.train.machine import Machine

FOLDER = "prefix"  # in the project's state folder
STATES = "states"
STORED: dict[str, type[np.floating[Any]]] = {"fp32": np.float32, "fp16": np.float16}
UNIT_SECONDS = 1.0  # states are computed in metered units of about this long

States = NDArray[np.floating[Any]]
Unit = Callable[[str, float], AbstractContextManager[object]]
"""A metered unit: what it is, and the longest that it may take in seconds."""


@dataclass(frozen=True)
class PrefixCache:
    """The kept states of one set of rows.

    Args:
        prefix: of the model that is trained.
        states_of: a row's (tokens, width) states, in fp32 or fp16.
        depth: how many layers they are the answer of, by default all of the prefix.
    """

    prefix: Prefix
    states_of: Callable[[int], States]
    depth: int | None = None

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
        padded[mask] = torch.from_numpy(flat).to(mask.device, padded.dtype)
        with self.prefix.given(padded, self.depth):
            yield


@dataclass(frozen=True)
class Needs:
    """What determines the states, besides the model's own weights on the disk."""

    task: Task
    encoded: Encoded
    machine: Machine
    depth: int

    @property
    def stored(self) -> type[np.floating[Any]]:
        """The type of a stored number."""
        return STORED[self.machine.states]

    @property
    def key(self) -> str:
        """Names a folder of states: model, depth, arithmetic, library versions, and the very tokens."""
        about = self.task.describe()
        facts = {
            "model": about["model"],
            "depth": self.depth,
            "precision": self.machine.precision,
            "stored": self.machine.states,
            "device": self.machine.device.split(":")[0],
            "threads": self.machine.threads,
            "batch": self.machine.read_batch_tokens,
            "versions": [torch.__version__, transformers.__version__],
        }
        digest = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
        digest.update(self.encoded.tokens.tobytes())
        digest.update(self.encoded.offsets.tobytes())
        return digest.hexdigest()


def states_bytes(needs: Needs, width: int) -> int:
    """How much the states of these rows take on the disk."""
    return int(needs.encoded.offsets[-1]) * width * needs.stored().nbytes


def bytes_kept(root: Path) -> int:
    """What all the folders of states under `root` take."""
    return sum(file.stat().st_size for file in root.glob(f"*/{STATES}"))


def open_or_build(
    root: Path,
    model: torch.nn.Module,
    prefix: Prefix,
    needs: Needs,
    seconds_per_token: float,
    most_bytes: float,
    unit: Unit,
) -> PrefixCache:
    """The states of these rows: as they were kept, or computed now; see `open_or_build_all`."""
    wanted = {needs.depth: needs}
    return open_or_build_all(root, model, prefix, wanted, seconds_per_token, most_bytes, unit)[needs.depth]


def open_or_build_all(
    root: Path,
    model: torch.nn.Module,
    prefix: Prefix,
    wanted: Mapping[int, Needs],
    seconds_per_token: float,
    most_bytes: float,
    unit: Unit,
) -> dict[int, PrefixCache]:
    """The states of the same rows at several depths: as they were kept, or computed now in one pass, in metered units.

    Args:
        root: the folder that holds one folder for each set of states.
        model: whose prefix it is.
        prefix: of the model, as deep as the deepest.
        wanted: what determines them, by depth.
        seconds_per_token: that computing them takes, from the probe.
        most_bytes: what all folders together may take; those whose states took least time a byte go first.
        unit: reserves and meters.

    Raises:
        OutOfBudget: money or time do not hold the next unit; nothing is kept then.
        BadInput: the disk is full, or a state is too large for fp16.
    """
    sweep(root)
    widths = {depth: _kept_width(root / needs.key) for depth, needs in wanted.items()}
    missing = [depth for depth, width in widths.items() if width is None]
    if missing:
        needs = wanted[missing[0]]
        width = _width(model, prefix, needs)
        for depth in missing:
            remove_folder(root / wanted[depth].key)
        keys = {needs.key for needs in wanted.values()}
        _make_room(root, len(missing) * states_bytes(needs, width), most_bytes, keys)

        def write(targets: dict[int, Path]) -> None:
            _write_states(targets, model, prefix, needs, width, seconds_per_token, unit)

        _in_folders({depth: root / wanted[depth].key for depth in missing}, {"width": width}, write)
        widths |= dict.fromkeys(missing, width)
    return {depth: _opened(root / needs.key, prefix, needs, widths[depth] or 0) for depth, needs in wanted.items()}


def _kept_width(folder: Path) -> int | None:
    """The width of the states in a whole folder; None where there is no such."""
    try:
        return int(read_whole(folder).about["width"])
    except NotWhole:
        return None


def _opened(folder: Path, prefix: Prefix, needs: Needs, width: int) -> PrefixCache:
    offsets = needs.encoded.offsets
    states = np.memmap(folder / STATES, dtype=needs.stored, mode="r", shape=(int(offsets[-1]), width))
    return PrefixCache(prefix, lambda row: states[offsets[row] : offsets[row + 1]], needs.depth)


def _in_folders(
    folders: dict[int, Path],
    about: dict[str, Any],
    write: Callable[[dict[int, Path]], None],
    targets: dict[int, Path] | None = None,
) -> None:
    """Write several folders in one go, each whole or not at all, and note in each how long its share took."""
    targets = targets or {}
    if not folders:
        began = time.monotonic()
        write(targets)
        about["seconds"] = (time.monotonic() - began) / len(targets)
        return
    depth, folder = next(iter(folders.items()))
    rest = {other: path for other, path in folders.items() if other != depth}
    write_folder(folder, lambda target: _in_folders(rest, about, write, targets | {depth: target}), about=about)


def _write_states(
    targets: dict[int, Path],
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
    states = {depth: np.memmap(target / STATES, needs.stored, "w+", shape=shape) for depth, target in targets.items()}
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
                answers = states_at(model, prefix, needs, rows, list(states))
                for kept, flat in zip(states.values(), answers, strict=True):
                    _put(kept, encoded, rows, flat)
        slowest = max(slowest, (time.monotonic() - began) / tokens)
    for kept in states.values():
        kept.flush()


def _put(states: States, encoded: Encoded, rows: NDArray[np.int64], flat: NDArray[np.float32]) -> None:
    largest, held = float(np.abs(flat).max()), float(np.finfo(states.dtype).max)
    if largest > held:
        raise BadInput(
            "what the frozen first layers answer is too large to be stored",
            where="train.prefix_states",
            found=f"fp16, and a state of {largest:g}",
            expected=f"at most {held:g}",
            way_out="state fp32 there",
        )
    at = 0
    for row in rows:
        start, end = int(encoded.offsets[row]), int(encoded.offsets[row + 1])
        states[start:end] = flat[at : at + end - start]
        at += end - start


def prefix_states(model: torch.nn.Module, prefix: Prefix, needs: Needs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(tokens of these rows, width): what the prefix answers for them, row after row, without the padding."""
    return states_at(model, prefix, needs, rows, [needs.depth])[0]


def states_at(
    model: torch.nn.Module, prefix: Prefix, needs: Needs, rows: NDArray[np.int64], depths: Sequence[int]
) -> list[NDArray[np.float32]]:
    """As `prefix_states`, at each of these depths, in one pass."""
    machine = needs.machine
    batch = {name: tensor.to(machine.device) for name, tensor in needs.task.batch(needs.encoded, rows).items()}
    with machine.autocast():
        answers = prefix.answers(lambda: needs.task.loss(model, batch), depths)
    mask = batch["attention_mask"].bool()
    return [answer[mask].float().cpu().numpy() for answer in answers]


def _width(model: torch.nn.Module, prefix: Prefix, needs: Needs) -> int:
    shortest = needs.encoded.lengths.argmin()
    return int(prefix_states(model, prefix, needs, np.array([shortest]))[0].size)


def _make_room(root: Path, wanted: int, most_bytes: float, keys: Collection[str]) -> None:
    """Remove kept states, those that took least time a byte first, until `wanted` more bytes are within the bound.

    Folders named by `keys` stay.
    """
    kept = []
    for folder in root.iterdir() if root.is_dir() else ():
        try:
            manifest = read_manifest(folder)
        except NotWhole:
            continue
        size = sum(entry.bytes for entry in manifest.files)
        kept.append((float(manifest.about.get("seconds", 0.0)) / max(1, size), size, folder))
    total = sum(size for _, size, _ in kept)
    for _, size, folder in sorted(kept, key=lambda entry: entry[0]):
        if total + wanted <= most_bytes:
            return
        if folder.name not in keys:
            remove_folder(folder)
            total -= size
