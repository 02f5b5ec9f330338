"""The frozen prefix of a model: the layers before the first trained one, whose output for a text never changes.

Their output can be taken once and given again instead of being computed: then the layers are passed by, and the model
begins, through its own forward, at the first layer that is trained. The reference is the same model with its prefix in
evaluation mode, which is how a frozen prefix runs here in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn

from thriftune.errors import BadInput
from thriftune.models.load import has_layer_list, layer_list, parameters_by_block

Forward = Callable[..., Any]

PROBE_SHAPE = (2, 3)  # rows and tokens of the input by which a model's first layers are known; unlike, to tell them


class NotPassable(Exception):
    """The first layers of this model cannot be passed by; the message tells why, a clause for a user."""


class _Reached(Exception):
    """The last layer of the prefix has answered; the rest of the model need not run."""


def frozen_depth(model: nn.Module) -> int:
    """How many of the first layers nothing trains, given that what stands before them is not trained either."""
    if not has_layer_list(model):
        return 0
    blocks = parameters_by_block(model)
    if any(parameter.requires_grad for parameter in blocks["embeddings"]):
        return 0
    depth = 0
    for number in range(len(layer_list(model))):
        if any(parameter.requires_grad for parameter in blocks[f"layer.{number}"]):
            return depth
        depth += 1
    return depth


def passable_depth(model: nn.Module) -> int:
    """How many of the first layers may be passed by: the frozen ones, but for the model's last."""
    depth = frozen_depth(model)
    return min(depth, len(layer_list(model)) - 1) if depth else 0


def freeze_first(model: nn.Module, layers: int) -> None:
    """Freeze the first layers and, with them, what stands before; with 0 nothing is frozen.

    Raises:
        BadInput: the model has no more layers than that, so that none would be left to train; or its layers are not
            separate.
    """
    if layers == 0:
        return
    there = len(layer_list(model))
    if layers >= there:
        raise BadInput(
            "no layer would be left to train",
            where="train.freeze_layers",
            found=str(layers),
            expected=f"at most {there - 1}: the model has {there} layers",
            way_out="freeze fewer; for a classifier, train.method: head trains the head alone",
        )
    blocks = parameters_by_block(model)
    for block in ("embeddings", *(f"layer.{number}" for number in range(layers))):
        for parameter in blocks[block]:
            parameter.requires_grad = False
    for parameter in _trained_before(model, layers).values():
        parameter.requires_grad = False


def still_prefix(model: nn.Module) -> list[Callable[[], None]]:
    """Let the frozen prefix run as in evaluation mode, whatever mode the model is in: nothing in it is dropped.

    What runs before the last frozen layer has answered is found by running it. A module that runs there and again
    later (XLNet has one dropout for its embeddings and its last states) is still in both places.

    Returns:
        what puts each module back as it was.
    """
    depth = frozen_depth(model)
    stilled: list[Callable[[], None]] = []
    if depth == 0:
        return stilled
    layers = layer_list(model)
    for module in _first_layers_of(model, depth).ran:
        if any(inside is layers for inside in module.modules()):
            for name, value in list(vars(module).items()):
                if "drop" in name and isinstance(value, float):
                    stilled.append(partial(setattr, module, name, value))
                    setattr(module, name, 0.0)
        else:
            module.eval()
            module.train = MethodType(_stay_as_it_is, module)  # type: ignore[method-assign]
            stilled.append(partial(_moved, module, model))
    return stilled


def _moved(module: nn.Module, model: nn.Module) -> None:
    """Let a module that was still be in the model's mode again."""
    vars(module).pop("train", None)
    module.train(model.training)


def _stay_as_it_is(module: nn.Module, mode: bool = True) -> nn.Module:
    """`nn.Module.train` of a module that stays in evaluation mode."""
    return module


@dataclass(frozen=True)
class _FirstLayers:
    """What the first layers of a model did on a small input.

    Args:
        answer: of the last of them, as it gave it.
        ran: the modules that ran before, those around the layers included.
    """

    answer: Any
    ran: list[nn.Module]

    @property
    def states(self) -> torch.Tensor:
        """The states in the answer."""
        states: torch.Tensor = self.answer[0] if isinstance(self.answer, tuple) else self.answer
        return states


def _first_layers_of(model: nn.Module, depth: int) -> _FirstLayers:
    """Run a small input as far as the layer before `depth`."""
    ran: list[nn.Module] = []
    found: list[Any] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output)
        raise _Reached

    hooks: list[Any] = [m.register_forward_pre_hook(lambda each, _inputs: ran.append(each)) for m in model.modules()]
    hooks.append(layer_list(model)[depth - 1].register_forward_hook(note))
    try:
        _run_small(model)
    except _Reached:
        return _FirstLayers(found[0], list(dict.fromkeys(ran)))
    finally:
        for hook in hooks:
            hook.remove()
    raise NotPassable("the model runs without its layers")


def _reader_of(model: nn.Module) -> nn.Module:
    """The innermost module around the layers that is given token ids, found by running a small input."""
    layers, readers = layer_list(model), list[nn.Module]()

    def note(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        given = [value for value in (*inputs, *options.values()) if isinstance(value, torch.Tensor)]
        if any(not value.is_floating_point() and value.shape == PROBE_SHAPE for value in given):
            readers.append(module)

    around = [module for module in model.modules() if any(inside is layers for inside in module.modules())]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in around if module is not layers]
    try:
        with torch.no_grad():
            _run_small(model)
    finally:
        for hook in hooks:
            hook.remove()
    return readers[-1] if readers else model


def _run_small(model: Any) -> Any:
    rows, tokens = PROBE_SHAPE
    device = next(model.parameters()).device
    ids = torch.arange(rows * tokens, device=device).reshape(rows, tokens) % model.config.get_text_config().vocab_size
    return model(input_ids=ids, attention_mask=torch.ones_like(ids))


def _trained_before(model: nn.Module, depth: int) -> dict[str, nn.Parameter]:
    """The trained parameters on which the states of the first layers depend, by name.

    The embeddings and the layers themselves are not all: DeBERTa normalises the relative positions that enter every
    layer by a module that stands after them.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.enable_grad():
        states = _first_layers_of(model, depth).states
        if not trained or not states.requires_grad:
            return {}
        gradients = torch.autograd.grad(states.sum(), list(trained.values()), allow_unused=True)
    return {name: p for (name, p), gradient in zip(trained.items(), gradients, strict=True) if gradient is not None}


class Memory(Protocol):
    """Keeps what the first layers answered, by the batch's key."""

    def recall(self, key: bytes) -> torch.Tensor | None:
        """The states of this batch, if they are kept."""
        ...

    def keep(self, key: bytes, states: torch.Tensor) -> None:
        """Keep them, if there is room."""
        ...


class Prefix:
    """The first layers of a model, to be run alone, or to be passed by with their output given.

    Args:
        model: a model of Transformers, with adapters or not.
        depth: how many layers are the prefix; at least 1, and fewer than there are.

    Raises:
        ValueError: there is no such prefix, or another one is in use on the model.
        NotPassable: its states are not the same at every step, or the family's layers cannot be passed by.
    """

    def __init__(self, model: nn.Module, depth: int) -> None:
        layers = layer_list(model)
        if not 0 < depth < len(layers):
            raise ValueError(f"a prefix of {depth} layers in a model of {len(layers)}")
        if any("forward" in vars(layer) for layer in list(layers)[:depth]):
            raise ValueError("the model has a prefix already")
        self.depth = depth
        self._given: torch.Tensor | None = None
        self._given_depth = depth
        self._layers = list(layers)[:depth]
        self._learn(model)
        self._reader = _reader_of(model)
        for number, layer in enumerate(self._layers):
            layer.forward = self._passed_by(layer.forward, number)

    def _learn(self, model: nn.Module) -> None:
        """How the layers of this family answer, from what they do."""
        trained = _trained_before(model, self.depth)
        if trained:
            raise NotPassable(f"{next(iter(trained))} is trained and enters the first layers")
        with torch.no_grad():
            first, second = (_first_layers_of(model, self.depth) for _ in range(2))
        # Layers answer with their states, or with a tuple that begins with them.
        self._besides = len(first.answer) - 1 if isinstance(first.answer, tuple) else None
        shape = tuple(first.states.shape[:-1])
        if shape not in (PROBE_SHAPE, PROBE_SHAPE[::-1]):
            raise NotPassable(f"the layers' states are of shape {tuple(first.states.shape)}, not (rows, tokens, width)")
        self._tokens_first = shape != PROBE_SHAPE  # XLNet's are (tokens, rows, width)
        if not torch.equal(first.states, second.states):
            raise NotPassable("something in the first layers is drawn at random at each step")

    def _passed_by(self, forward: Forward, number: int) -> Forward:
        def passing(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            if self._given is None or number >= self._given_depth:
                return forward(hidden_states, *arguments, **options)
            answer = self._given if number == self._given_depth - 1 else hidden_states
            return answer if self._besides is None else (answer, *[None] * self._besides)

        return passing

    def _turned(self, states: torch.Tensor) -> torch.Tensor:
        """From the family's order of rows and tokens to ours, or back."""
        return states.transpose(0, 1) if self._tokens_first else states

    def release(self) -> None:
        """Leave the model as it was."""
        for layer in self._layers:
            del layer.forward

    @contextmanager
    def given(self, states: torch.Tensor, depth: int | None = None) -> Iterator[None]:
        """Inside, the model takes `states` (rows, tokens, width) for what its first layers answer.

        Args:
            states: what they answer.
            depth: how many layers, by default all of the prefix.
        """
        self._given, self._given_depth = self._turned(states), self.depth if depth is None else depth
        try:
            yield
        finally:
            self._given = None

    @contextmanager
    def remembered(self, memory: Memory, depth: int | None = None) -> Iterator[None]:
        """Inside, what the first layers answer to a batch is kept, and given when the very same batch comes again.

        A batch is known by what the model is given of it: ids, mask and the like. Its states come back as they were,
        padding included, so that nothing about the model's answer changes.

        Args:
            memory: keeps them.
            depth: how many layers, by default all of the prefix.
        """
        depth = self.depth if depth is None else depth
        new: list[bytes] = []

        def before(_module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            digest = blake2b(str(depth).encode(), digest_size=16)
            for value in (*inputs, *options.values()):
                if isinstance(value, torch.Tensor):
                    digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
                    digest.update(value.cpu().numpy().tobytes())
            self._given, self._given_depth = memory.recall(digest.digest()), depth
            new[:] = [] if self._given is not None else [digest.digest()]

        def answered(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if new:
                memory.keep(new.pop(), output if self._besides is None else output[0])

        def after(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            self._given = None

        hooks = [
            self._reader.register_forward_pre_hook(before, with_kwargs=True),
            self._layers[depth - 1].register_forward_hook(answered),
            self._reader.register_forward_hook(after),
        ]
        try:
            yield
        finally:
            self._given = None
            for hook in hooks:
                hook.remove()

    def answer(self, run: Callable[[], object]) -> torch.Tensor:
        """(rows, tokens, width): what the prefix answers while `run` runs the model, which is left off after it."""
        return self.answers(run, [self.depth])[0]

    @torch.no_grad()
    def answers(self, run: Callable[[], object], depths: Sequence[int]) -> list[torch.Tensor]:
        """What the first layers answer at each of these depths, in one pass.

        Args:
            run: runs the model, which is left off after the deepest.
            depths: numbers of layers, at most that of the prefix.
        """
        found: dict[int, torch.Tensor] = {}

        def note(depth: int) -> Callable[..., None]:
            def taken(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[depth] = self._turned(output if self._besides is None else output[0])
                if depth == max(depths):
                    raise _Reached

            return taken

        hooks = [self._layers[depth - 1].register_forward_hook(note(depth)) for depth in depths]
        try:
            run()
        except _Reached:
            return [found[depth] for depth in depths]
        finally:
            for hook in hooks:
                hook.remove()
        raise RuntimeError("the model ran without its prefix")
