"""Checkpoints: all that the loop needs to go on, as safetensors and JSON; nothing is pickled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from thriftune.artifacts import NotWhole, read_whole, sweep, write_folder

AVERAGE = "average.safetensors"
KEPT = 2  # the newest, and the one before it in case the newest is damaged by the disk


@dataclass(frozen=True)
class Checkpoint:
    """A moment of training.

    Args:
        step: updates done.
        weights: trained parameters by name.
        moments: AdamW's state, `name/exp_avg` and so on.
        best: the trained parameters of the best validation so far, empty before the first.
        progress: everything else, as plain JSON values.
        average: of the weights (`train/ema.py`), empty where none is kept.
    """

    step: int
    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]
    progress: dict[str, Any]
    average: dict[str, torch.Tensor] = field(default_factory=dict)


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> Path:
    """Write it whole or not at all under `root`, then drop the older ones."""
    target = root / f"step-{checkpoint.step:08d}"

    def write(folder: Path) -> None:
        save_file(checkpoint.weights, folder / "weights.safetensors")
        save_file(checkpoint.moments, folder / "moments.safetensors")
        save_file(checkpoint.best, folder / "best.safetensors")
        if checkpoint.average:
            save_file(checkpoint.average, folder / AVERAGE)
        (folder / "progress.json").write_text(json.dumps({"step": checkpoint.step} | checkpoint.progress))

    write_folder(target, write, crash="checkpoint")
    for older in sorted(root.glob("step-*"))[:-KEPT]:
        shutil.rmtree(older)
    return target


def load_latest(root: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `root`, or None."""
    sweep(root)
    for folder in sorted(root.glob("step-*"), reverse=True):
        try:
            read_whole(folder)
        except NotWhole:
            continue
        progress = json.loads((folder / "progress.json").read_text())
        return Checkpoint(
            step=progress.pop("step"),
            weights=load_file(folder / "weights.safetensors"),
            moments=load_file(folder / "moments.safetensors"),
            best=load_file(folder / "best.safetensors"),
            progress=progress,
            average=load_file(folder / AVERAGE) if (folder / AVERAGE).exists() else {},
        )
    return None


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained parameters, by name: no copies, they change with the next update."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same values, which no update changes any more."""
    return {name: value.clone() for name, value in state.items()}


def load_trained(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put trained parameters back in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's tensors under `name/key`: no copies."""
    return {
        f"{name}/{key}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor]) -> None:
    """Put the optimizer's tensors back."""
    parameters = dict(model.named_parameters())
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        place = parameters[name].device if key != "step" or parameters[name].is_cuda else torch.device("cpu")
        optimizer.state[parameters[name]][key] = value.to(place)
