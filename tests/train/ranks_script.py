"""Started by torchrun in `test_ranks.py`: two processes train several works by turns, in one group.

What rank 0 gets out of each is written as JSON. `trained` does the same in one process, where no group is given.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch.distributed.tensor import DTensor

from thriftune.budget.decisions import Decisions
from thriftune.clock import SystemClock
from thriftune.events import EventLog, open_attempt
from thriftune.models.reference import resolve
from thriftune.store import open_store
from thriftune.tasks.base import Encoded, Task
from thriftune.tasks.batches import take
from thriftune.tasks.chat import ChatTask, LoraShape
from thriftune.tasks.classify import ClassifyTask
from thriftune.train.costs import Costs
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.ranks import ALONE, Group, join
from thriftune.train.recipe import Recipe
from thriftune.train.supervision import Supervision
from thriftune.train.worker import follow

COSTS = Costs(seconds_per_token=1e-4, validation=1.0, checkpoint=1.0, peak_bytes=0.0)
ROWS, BATCH = 37, 12  # the last update of an epoch has one row: a rank is left without any


@dataclass(frozen=True)
class Case:
    """A work, and how it is spread over processes."""

    kind: str
    parallel: str
    micro_batch_tokens: int | None = None


CASES = {
    "classify-ddp": Case("classify", "ddp"),
    "classify-ddp-parts": Case("classify", "ddp", 40),
    "classify-fsdp": Case("classify", "fsdp"),
    "classify-fsdp-parts": Case("classify", "fsdp", 40),
    "lora-ddp": Case("lora", "ddp"),
    "lora-fsdp": Case("lora", "fsdp"),
    "chat-tensor": Case("chat", "tensor"),
}
KINDS = ("classify", "lora", "chat")


def work(kind: str, models: Path) -> tuple[Task, Encoded]:
    """Rows of unlike lengths."""
    if kind == "classify":
        texts = [("good" if row % 2 else "bad") + " film" * (1 + row % 13) for row in range(ROWS)]
        labels = [("bad", "good")[row % 2] for row in range(ROWS)]
        task = ClassifyTask(resolve(str(models / "bert")), ("bad", "good"), dropout=0.0)
        return task, task.encode(pl.DataFrame({"text": texts, "target": labels}))
    chat = ChatTask(resolve(str(models / "llama")), lora=LoraShape(4, 8, 0.0) if kind == "lora" else None)
    asked = [[{"role": "user", "content": "how?" * (1 + row % 5)}] for row in range(ROWS)]
    return chat, chat.encode_pairs(asked, ["off" * (1 + row % 3) for row in range(ROWS)])


def maker(case: Case, models: Path, watch: Any, group: Group | None) -> Callable[[], Loop]:
    task, rows = work(case.kind, models)
    recipe = Recipe(epochs=3, rows_per_update=BATCH, rate=1e-2, patience=1000)
    machine, model = Machine(micro_batch_tokens=case.micro_batch_tokens), task.build()
    return lambda: Loop(task, model, rows, take(rows, np.arange(9)), recipe, machine, watch, group or ALONE)


def trained(case: Case, models: Path, checkpoints: Path, group: Group | None = None) -> dict[str, Any]:
    """Train to the end, or on from the checkpoint that is there; one is written at every validation, the last too."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    store, clock = open_store(f"sqlite:///{checkpoints}.db"), SystemClock()
    events = EventLog(store, clock, "test", open_attempt(store, clock, "test", "recipe").attempt)
    steps: list[dict[str, Any]] = []
    events.subscribe(lambda event: steps.append(event.data) if event.kind == "training.step" else None)
    watch = Supervision(Decisions(events), events, None, None, checkpoints, checkpoint_seconds=0.0)
    make = maker(case, models, watch, group)
    if group is not None:
        group.start(case.parallel, lambda: False, case=case.__dict__)
    loop = make()
    held = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in loop.model.parameters())
    outcome = loop.run(5, COSTS)
    events.close()
    store.close()
    return {
        "steps": [[step["step"], step["loss"], step["tokens"]] for step in steps],
        "validation": outcome.best["loss"],
        "padding": outcome.padding_share,
        "held": held,
        "weights": {name: p.tolist() for name, p in loop.model.named_parameters() if p.requires_grad},
    }


def forget_the_end(checkpoints: Path) -> None:
    """Leave the checkpoint before the last."""
    shutil.rmtree(max(checkpoints.glob("step-*")))


def main(models: Path, scratch: Path) -> None:
    group = join()
    if group.rank:
        follow(group, lambda order: maker(Case(**order["case"]), models, None, group))
        return
    found = {}
    with group.leading():
        for name, case in CASES.items():
            own, alone = scratch / name, scratch / f"{name}-from-alone"
            found[name] = {"whole": trained(case, models, own, group)}
            forget_the_end(own)
            shutil.copytree(own, scratch / f"{name}-again")
            found[name]["again"] = trained(case, models, scratch / f"{name}-again", group)
            shutil.copytree(scratch / case.kind, alone)
            found[name]["resumed"] = trained(case, models, alone, group)
    (scratch / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
