"""Several processes (ranks) at one training, by torch.distributed: the one file that knows of it.

Rank 0 runs the line as if it were alone: it has the lease, the meter, the governor, the database and the checkpoints,
and takes every decision. Where a step needs the others, it gives an order first (`lead`), through the launcher's
key-value store, as JSON; the others (`train/worker.py`) wait for orders and do the same call, so that all meet in the
same collective operations. What a rank is given is a function of the batch plan and its number alone.

Three engines, all of them others': DistributedDataParallel (Li et al., "PyTorch Distributed", VLDB 2020), FSDP2's
`fully_shard` (Zhao et al., "PyTorch FSDP", VLDB 2023), and the tensor parallel plans that come with Transformers'
models (Shoeybi et al., "Megatron-LM", 2019).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from thriftune.errors import BadInput, Interrupted, ThriftuneError
from thriftune.models.load import layer_list
from thriftune.tasks.base import Batch, Encoded, Task
from thriftune.train.checkpoint import load_optimizer, load_trained, optimizer_state, trained_state

Parallel = Literal["ddp", "fsdp", "tensor"]
Tensors = dict[str, torch.Tensor]

MEETING_SECONDS = 300.0  # for all to start: imports on a busy machine, nodes that come one after the other
COLLECTIVE_SECONDS = 60.0  # for all to enter an operation that rank 0 has just ordered
BEAT_SECONDS = 1.0
PATIENCE_SECONDS = 60.0  # without a beat of rank 0
PATIENCE_ONCE_TOLD = 5.0  # the same after a signal to end
SHORTEST_NAP, LONGEST_NAP = 1e-4, 0.05  # seconds between two looks for the next order
TOLD = ("what", "where", "found", "expected", "way_out")


@dataclass(frozen=True)
class Share:
    """One rank's part of a forward and backward pass.

    Args:
        rows: row ids; never empty, since every rank must take part.
        factor: on its loss: the number of ranks that gradients are averaged over, so that the average is the global
            batch's sum; 0 for a rank with no rows of its own, which computes a row of another's.
        last: of its update: gradients may be averaged now.
    """

    rows: NDArray[np.int64]
    factor: float = 1.0
    last: bool = True


class Ranks:
    """One process alone; `Group` is several."""

    size = 1
    rank = 0
    place: tuple[int, ...] = ()  # what sets this rank's randomness apart, beside seed and step

    def lead(self, what: str, **facts: Any) -> None:
        """Rank 0: tell the others what to do along with it."""

    def lost(self) -> AbstractContextManager[None]:
        """A context in which the loss of another rank is told as an interruption."""
        return nullcontext()

    def spread(self, task: Task, model: torch.nn.Module) -> torch.nn.Module:
        """The model made ready for these ranks, once; before its optimizer is made."""
        return model

    def micro_batch_tokens(self, one: int | None) -> int | None:
        """Padded tokens that all ranks together hold in a forward pass, of which each holds `one`."""
        return one

    def slices(self, parts: list[NDArray[np.int64]]) -> list[list[NDArray[np.int64]]]:
        """Each micro-batch cut into what each rank computes; some may be empty."""
        return [[part] for part in parts]

    def shares(self, slices: list[list[NDArray[np.int64]]]) -> list[Share]:
        """This rank's parts."""
        return [Share(rows, last=i == len(slices) - 1) for i, (rows,) in enumerate(slices)]

    def loss(self, task: Task, model: torch.nn.Module, batch: Batch, share: Share) -> torch.Tensor:
        """The summed loss of a share, with a gradient."""
        return task.loss(model, batch)

    def total(self, loss: torch.Tensor) -> torch.Tensor:
        """The update's loss from this rank's."""
        return loss

    def clip(self, parameters: list[torch.nn.Parameter], longest: float) -> None:
        """Cut the whole gradient to a norm of at most `longest`."""
        torch.nn.utils.clip_grad_norm_(parameters, longest)

    def validate(
        self, task: Task, model: torch.nn.Module, rows: Encoded, batch_tokens: int, sample: list[int] | None = None
    ) -> dict[str, float]:
        """The task's figures on held-out rows.

        Args:
            rows: the validation split, or a sample of it.
            sample: which of the split's rows they are; None for all.
        """
        return task.validate(model, rows, batch_tokens)

    def trained(self, model: torch.nn.Module) -> Tensors:
        """The trained parameters, whole, by name, on rank 0: `checkpoint.copied` keeps them from the next update."""
        return trained_state(model)

    def moments(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """The optimizer's tensors, whole, as `checkpoint.optimizer_state` names them; on rank 0."""
        return optimizer_state(model, optimizer)

    def restore(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, weights: Tensors, moments: Tensors
    ) -> None:
        """Put whole trained parameters and optimizer tensors back in place on every rank."""
        load_trained(model, weights)
        optimizer.state.clear()
        load_optimizer(model, optimizer, moments)

    def finished(self, task: Task, model: torch.nn.Module, weights: Tensors) -> torch.nn.Module:
        """A whole model with these trained weights, on rank 0."""
        load_trained(model, weights)
        return model


ALONE = Ranks()


class _Root(torch.nn.Module):
    """What the engines wrap: its forward does anything that needs the model's weights in place."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, do: Callable[[torch.nn.Module], Any]) -> Any:
        """Do it with the model."""
        return do(self.model)


class Group(Ranks):
    """Several ranks. Use `join`."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.parallel: Parallel = "ddp"
        self._store = store
        self._orders = 0
        self._root: torch.nn.Module | None = None
        self._model: torch.nn.Module | None = None
        self._told = False

    def start(self, parallel: Parallel, interrupted: Callable[[], bool], **facts: Any) -> None:
        """Rank 0: say what is to be trained and how, and wait until all are ready, however long they read and load.

        Raises:
            BadInput: another rank cannot do this work.
            Interrupted: a signal came meanwhile; launchers send one when a rank has ended.
        """
        awaited = [f"ready/{rank}" for rank in range(1, self.size)]
        for key in awaited:
            self._store.delete_key(key)
        self.lead("begin", parallel=parallel, **facts)
        self.take_up(parallel)
        with self.lost():
            while not self._store.check(awaited):
                if self._store.check(["refused"]):
                    raise BadInput(**json.loads(self._store.get("refused")))
                if interrupted():
                    raise Interrupted("interrupted", way_out="the same command goes on from here")
                time.sleep(LONGEST_NAP)

    def ready(self) -> None:
        """Another rank: the work that was ordered is built."""
        self._store.set(f"ready/{self.rank}", "")

    def refuse(self, error: ThriftuneError) -> None:
        """Another rank: say why it cannot be, so that rank 0 tells the user once."""
        self._store.set("refused", json.dumps({name: getattr(error, name) for name in TOLD}))

    def take_up(self, parallel: Parallel) -> None:
        """Train this way from now on."""
        self.parallel = parallel
        self.place = (self.rank,) if self._data_ranks > 1 and self.rank else ()

    @property
    def _data_ranks(self) -> int:
        """Over how many ranks a batch is spread: with tensor parallelism every rank computes all of its rows."""
        return 1 if self.parallel == "tensor" else self.size

    @property
    def _sharded(self) -> bool:
        return self.parallel != "ddp"

    # orders

    def lead(self, what: str, **facts: Any) -> None:
        if self.rank:
            return
        self._store.set(f"order/{self._orders}", json.dumps({"what": what} | facts))
        if self._orders >= 2:  # whoever takes part in the order before has read the one before that
            self._store.delete_key(f"order/{self._orders - 2}")
        self._orders += 1

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Rank 0's work: the others see that it lives, and are dismissed however it ends."""
        ended = threading.Event()

        def beat() -> None:
            count = 0
            while not ended.wait(BEAT_SECONDS):
                count += 1
                try:
                    self._store.set("beat", str(count))
                except RuntimeError:  # the launcher that keeps the store is gone
                    return

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self.lead("end")

    def orders(self) -> Iterator[dict[str, Any]]:
        """Another rank's work: rank 0's orders, until it dismisses this rank.

        Raises:
            Interrupted: rank 0 shows no sign of life, or the launcher is gone.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note_signal)
        while True:
            order = self._next_order()
            if order["what"] == "end":
                return
            yield order

    def _note_signal(self, number: int, frame: object) -> None:
        """Rank 0 decides when to stop; without it, do not wait long."""
        self._told = True

    def _next_order(self) -> dict[str, Any]:
        key = f"order/{self._orders}"
        beat = b""
        began = seen = looked = time.monotonic()
        # Asked for, not waited for: the store's own wait warns on stderr whenever its time runs out.
        while not self._store.check([key]):
            now = time.monotonic()
            if now - looked > BEAT_SECONDS:
                looked, latest = now, self._store.get("beat") if self._store.check(["beat"]) else b""
                if latest != beat:
                    beat, seen = latest, now
                if now - seen > (PATIENCE_ONCE_TOLD if self._told else PATIENCE_SECONDS):
                    raise dist.DistStoreError("process 0 shows no sign of life")
            time.sleep(min(LONGEST_NAP, max(SHORTEST_NAP, (now - began) / 10)))
        self._orders += 1
        return dict(json.loads(self._store.get(key)))

    @contextmanager
    def lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise Interrupted(
                "another of the processes that train together is gone",
                where=f"process {self.rank} of {self.size}",
                found=str(error).splitlines()[0][:200],
                way_out="the same command goes on from the last checkpoint, with any number of processes",
            ) from error

    # the model

    def spread(self, task: Task, model: torch.nn.Module) -> torch.nn.Module:
        if self._model is model:
            return model
        if self.parallel == "tensor":
            _split_by_plan(model, self.size)
        self._model, self._root = model, _Root(model)
        if self.parallel == "ddp":
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # broadcast_buffers has a new name
                self._root = DistributedDataParallel(
                    self._root, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
                )
        elif self.parallel == "fsdp":
            mesh = init_device_mesh(self.device, (self.size,))
            for layer in layer_list(model):
                fully_shard(layer, mesh=mesh)
            fully_shard(self._root, mesh=mesh)
        return model

    def micro_batch_tokens(self, one: int | None) -> int | None:
        return None if one is None else one * self._data_ranks

    def slices(self, parts: list[NDArray[np.int64]]) -> list[list[NDArray[np.int64]]]:
        # Neighbours in a part are of like length: dealt out in turn, all ranks have equally much to do.
        return [[part[rank :: self._data_ranks] for rank in range(self._data_ranks)] for part in parts]

    def shares(self, slices: list[list[NDArray[np.int64]]]) -> list[Share]:
        own = self.rank % self._data_ranks
        return [
            Share(
                cut[own] if len(cut[own]) else cut[0][:1],
                float(self._data_ranks) if len(cut[own]) else 0.0,
                i == len(slices) - 1,
            )
            for i, cut in enumerate(slices)
        ]

    def loss(self, task: Task, model: torch.nn.Module, batch: Batch, share: Share) -> torch.Tensor:
        root = self._root
        waits = isinstance(root, DistributedDataParallel) and not share.last
        with cast(DistributedDataParallel, root).no_sync() if waits else nullcontext():
            loss = cast(torch.nn.Module, root)(lambda inner: task.loss(inner, batch))
        return cast(torch.Tensor, loss * share.factor)

    def total(self, loss: torch.Tensor) -> torch.Tensor:
        if self._data_ranks > 1:
            dist.all_reduce(loss)
        return loss / self._data_ranks

    def clip(self, parameters: list[torch.nn.Parameter], longest: float) -> None:
        norms = []
        for sharded in (False, True):  # norms of plain and of sharded tensors cannot be stacked
            gradients = [p.grad for p in parameters if p.grad is not None and isinstance(p.grad, DTensor) == sharded]
            if gradients:
                norm = torch.nn.utils.get_total_norm(gradients)
                norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        whole = torch.linalg.vector_norm(torch.stack(norms))
        for sharded in (False, True):
            some = [p for p in parameters if p.grad is not None and isinstance(p.grad, DTensor) == sharded]
            torch.nn.utils.clip_grads_with_norm_(some, longest, whole)

    def validate(
        self, task: Task, model: torch.nn.Module, rows: Encoded, batch_tokens: int, sample: list[int] | None = None
    ) -> dict[str, float]:
        if not self._sharded:
            return task.validate(model, rows, batch_tokens)
        self.lead("validate", sample=sample)
        root = cast(Any, self._root)
        figures = cast(dict[str, float], root(lambda inner: task.validate(inner, rows, batch_tokens)))
        if self.parallel == "fsdp":
            root.reshard()
        return figures

    # whole states on rank 0, whatever each rank holds

    def trained(self, model: torch.nn.Module) -> Tensors:
        if not self._sharded:
            return trained_state(model)
        self.lead("gather_weights")
        return _whole(trained_state(model))

    def moments(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        if not self._sharded:
            return optimizer_state(model, optimizer)
        self.lead("gather_moments")
        return _whole(optimizer_state(model, optimizer))

    def restore(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, weights: Tensors, moments: Tensors
    ) -> None:
        self.lead("restore", weights=_forms(weights), moments=_forms(moments))
        parameters = dict(model.named_parameters())
        load_trained(model, {name: self._placed(parameters[name], value) for name, value in weights.items()})
        optimizer.state.clear()
        load_optimizer(
            model,
            optimizer,
            {path: self._placed(parameters[path.rpartition("/")[0]], value) for path, value in moments.items()},
        )

    def restore_as_ordered(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, order: dict[str, Any]
    ) -> None:
        """Another rank's part of `restore`."""
        self.restore(model, optimizer, _empty(order["weights"]), _empty(order["moments"]))

    def _placed(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """Rank 0's tensor, as this rank holds it."""
        value = value.to(self.device).contiguous()
        dist.broadcast(value, src=0)
        if isinstance(parameter, DTensor) and value.shape == parameter.shape:
            return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return value

    def finished(self, task: Task, model: torch.nn.Module, weights: Tensors) -> torch.nn.Module:
        if self._sharded:
            model = task.build()
        load_trained(model, weights)
        return model


def join() -> Group:
    """Meet the other processes that the launcher started.

    Raises:
        Interrupted: they did not all come.
    """
    store, rank, size = next(rendezvous("env://"))
    store.set_timeout(timedelta(seconds=MEETING_SECONDS))
    group = Group(PrefixStore("thriftune", store), rank, size)
    backend = "gloo"
    if group.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    with group.lost():
        dist.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
    return group


def choose_parallel(wanted: str, model: torch.nn.Module, free_bytes: float) -> tuple[Parallel, str]:
    """How to spread this model over the ranks, and why.

    Args:
        wanted: the project file's `train.parallel`.
        free_bytes: memory that each rank may still take.

    Raises:
        BadInput: tensor parallelism of a model that has no plan for it, or that has adapters.
    """
    if wanted == "tensor":
        _require_plan(model)
    if wanted != "auto":
        return cast(Parallel, wanted), "stated in the project file"
    parameters = list(model.parameters())
    held = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    needed = held + 4 * trained  # gradients, two moments, the best so far
    fits = needed <= free_bytes / 2  # the other half is for activations
    because = f"weights, gradients and optimizer take {needed / 1e9:.2f} GB a process of {free_bytes / 1e9:.2f} GB free"
    return ("ddp" if fits else "fsdp"), because


def _require_plan(model: torch.nn.Module) -> None:
    if isinstance(model, PreTrainedModel) and model._tp_plan:  # adapters around it have no part in the plan
        return
    raise BadInput(
        "this model cannot be split by tensor parallelism",
        where="train.parallel",
        found=f"tensor, with {type(model).__name__}, for which Transformers has no plan",
        expected="a model with a plan, such as Llama, every weight of which is trained (train.method: full)",
        way_out="train.parallel: fsdp also divides the model among the processes",
    )


def _split_by_plan(model: torch.nn.Module, size: int) -> None:
    """Each rank keeps its part of the layers, by the plan that Transformers has for the family."""
    from transformers.distributed import DistributedConfig

    causal = cast(Any, model)
    head = causal.get_output_embeddings()
    if head is not None:  # the plan knows the head by name: it is tied again below
        head.weight = torch.nn.Parameter(head.weight.detach(), requires_grad=head.weight.requires_grad)
    config, _, mesh = type(causal).prepare_distribute_model(DistributedConfig(tp_size=size, tp_plan="auto"))
    type(causal).maybe_distribute_model(causal, config, mesh)
    causal.tie_weights()


def _whole(state: Tensors) -> Tensors:
    return {name: t.full_tensor().contiguous() if isinstance(t, DTensor) else t for name, t in state.items()}


def _forms(state: Tensors) -> list[tuple[str, list[int], str]]:
    return [(name, list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()]


def _empty(forms: list[tuple[str, list[int], str]]) -> Tensors:
    return {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in forms}
