"""The frozen prefix of a model: the layers before the first trained one, whose output for a text never changes.

Their output can be taken once and given again instead of being computed: then the layers are passed by, and the model
begins, through its own forward, at the first layer that is trained. The reference is the same model with its prefix in
evaluation mode, which is how a frozen prefix runs here in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from thriftune.errors import BadInput
from thriftune.models.dropout import QuickDropout
from thriftune.models.load import layer_list, parameters_by_block

Forward = Callable[..., Any]


class _Reached(Exception):
    """The last layer of the prefix has answered; the rest of the model need not run."""


def frozen_depth(model: nn.Module) -> int:
    """How many of the first layers nothing trains, given that what stands before them is not trained either."""
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
    return min(frozen_depth(model), len(layer_list(model)) - 1)


def freeze_first(model: nn.Module, layers: int) -> None:
    """Freeze the first layers and, with them, what stands before; with 0 nothing is frozen.

    Raises:
        BadInput: the model has no more layers than that, so that none would be left to train.
    """
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
    for block in ("embeddings", *(f"layer.{number}" for number in range(layers))) if layers else ():
        for parameter in blocks[block]:
            parameter.requires_grad = False


def still_prefix(model: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Let the frozen prefix run as in evaluation mode, whatever mode the model is in: nothing in it is dropped.

    Returns:
        Modules, the attributes that were set to 0, and what they were: for `restore_dropout`.
    """
    depth = frozen_depth(model)
    stilled: list[tuple[nn.Module, str, float]] = []
    if depth == 0:
        return stilled
    layers = layer_list(model)
    trained = {module for layer in list(layers)[depth:] for module in layer.modules()}
    after = _after_the_layers(model)
    for module in model.modules():
        if module in trained or module in after:
            continue
        own = ("p",) if isinstance(module, nn.Dropout | QuickDropout) else ()
        for rate in (*own, "attention_dropout", "dropout"):  # some families keep their attention's rate as a number
            if isinstance(getattr(module, rate, None), float):
                stilled.append((module, rate, getattr(module, rate)))
                setattr(module, rate, 0.0)
    return stilled


def restore_dropout(stilled: list[tuple[nn.Module, str, float]]) -> None:
    """Give modules back the dropout rates that `still_prefix` took from them."""
    for module, name, rate in stilled:
        setattr(module, name, rate)


def _after_the_layers(model: nn.Module) -> set[nn.Module]:
    """Modules that stand after the layers, such as pooler and head."""
    layers, seen, after = layer_list(model), False, set()
    inside = set(layers.modules())
    for module in model.modules():
        if module is layers:
            seen = True
        elif seen and module not in inside:
            after.add(module)
    return after


class Prefix:
    """The first layers of a model, to be run alone, or to be passed by with their output given.

    Args:
        model: a model of Transformers, with adapters or not.
        depth: how many layers are the prefix; at least 1, and fewer than there are.

    Raises:
        ValueError: there is no such prefix, or another one is in use on the model.
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
        self._in_tuples = False  # whether the layers of this family answer with a tuple
        for number, layer in enumerate(self._layers):
            layer.forward = self._passed_by(layer.forward, number)

    def _passed_by(self, forward: Forward, number: int) -> Forward:
        def passing(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            if self._given is None or number >= self._given_depth:
                return forward(hidden_states, *arguments, **options)
            answer = self._given if number == self._given_depth - 1 else hidden_states
            return (answer,) if self._in_tuples else answer

        return passing

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
        self._given, self._given_depth = states, self.depth if depth is None else depth
        try:
            yield
        finally:
            self._given = None

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
                self._in_tuples = isinstance(output, tuple)
                found[depth] = output[0] if self._in_tuples else output
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
