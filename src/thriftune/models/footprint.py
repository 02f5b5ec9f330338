"""What training a model holds in memory, by method: foretold from its config alone, no weight read.

    peak = weights + moments + gradients + activations

in fp32: 4 bytes a number of the weights, 8 a trained number for AdamW's two moments (Loshchilov and Hutter, ICLR 2019),
4 a trained number for its gradient. Activations are what autograd keeps for the backward pass. Closed forms
(Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", 2022, equation 1) hold for one
architecture; here the model's own forward pass runs on tensors without contents (PyTorch's `FakeTensorMode`), and the
bytes that it saves are counted. To these come the vocabulary's logits of a chat model, of which a few copies live at
once, a few temporaries as large as the largest saved tensor, where the whole encoder is frozen a layer's states, which
nothing saves, and with adapters what glibc's allocator leaves unused.
`tests/models/test_inspection.py` holds the sum to the peak of real updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from thriftune.models.load import body_of, linear_layers
from thriftune.models.prefix import freeze_first
from thriftune.models.quiet import quiet_transformers

NUMBER_BYTES = 4  # fp32
MOMENTS = 2  # of AdamW, each as large as what is trained
TEMPORARIES = 4  # tensors as large as the largest that are live at once beside the saved ones; measured
LAYER_STATES = 6  # hidden states that a layer without a graph holds: its input, query, key, value, context, residual
LOGITS_COPIES = 4  # logits, their logarithmic softmax, and the gradients of both
HOLES = (
    2  # outputs of an adapted layer (its own, and the adapters') whose freed places glibc 2.36 fills with nothing as
)
# large, since both are aligned; with every such block mapped by itself they are gone. Measured.
LOGITS_CHUNK = 16_777_216  # most logits that are computed at once (`tasks/chat.py`)

Kind = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Tuning:
    """A way to tune.

    Args:
        method: full, lora or head.
        frozen_layers: how many of the first layers are frozen, the embeddings with them.
        rank: of the adapters of method lora.
    """

    method: str
    frozen_layers: int = 0
    rank: int = 16


@dataclass(frozen=True)
class Footprint:
    """The most bytes that an update holds, beside the process itself.

    Args:
        trained: numbers that are trained.
        weights: bytes of the model, adapters included.
        gradients: bytes of the gradients.
        moments: bytes of AdamW's moments.
        activations: bytes of what the forward pass leaves for the backward pass, logits and temporaries included;
            None for a family whose forward pass cannot be followed without contents.
    """

    trained: int
    weights: int
    gradients: int
    moments: int
    activations: int | None

    @property
    def peak(self) -> int | None:
        """All of it together."""
        if self.activations is None:
            return None
        return self.weights + self.gradients + self.moments + self.activations


@contextmanager
def empty_model(config: Any, kind: Kind, classes: int) -> Iterator[nn.Module]:
    """The model of a config, with a head of so many classes for an encoder, its tensors without contents."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.initialization import no_init_weights

    family = AutoModelForSequenceClassification if kind == "encoder" else AutoModelForCausalLM
    config.num_labels = classes
    with FakeTensorMode(), quiet_transformers():
        with no_init_weights():  # some families draw numbers again and again until they please
            model = family.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.tie_weights()
        yield model


def footprint(config: Any, kind: Kind, tuning: Tuning, rows: int, tokens: int, classes: int = 2) -> Footprint:
    """What an update on a batch holds.

    Args:
        config: the model's, of Transformers.
        kind: an encoder with a classification head, or a decoder.
        tuning: how it is tuned.
        rows: of the batch; the layers of a batch with padding are counted.
        tokens: of its longest row; for a decoder, half of them are taken for the answer's.
        classes: of the head.

    Raises:
        BadInput: there is no layer left to train.
    """
    with empty_model(config, kind, classes) as model:
        whole = sum(p.numel() for p in model.parameters())
        largest = max(_saved(model, rows, tokens), default=None)
        adapters = _restrict(model, tuning)
        trained = adapters or sum(p.numel() for p in model.parameters() if p.requires_grad)
        saved = sum(_saved(model, rows, tokens))
        if adapters:
            adapted = cast(dict[str, Any], linear_layers(model, tuning.frozen_layers)).values()
            outputs = sum(m.weight.numel() // _inputs(m) for m in adapted)
            saved += (HOLES * outputs + tuning.rank * len(adapted)) * rows * tokens * NUMBER_BYTES
    activations = None
    if largest is not None:
        vocabulary = config.get_text_config().vocab_size
        logits = min(rows * tokens // 2 * vocabulary, max(LOGITS_CHUNK, vocabulary)) if kind == "decoder" else 0
        states = LAYER_STATES * rows * tokens * config.get_text_config().hidden_size if tuning.method == "head" else 0
        activations = saved + TEMPORARIES * largest + (states + LOGITS_COPIES * logits) * NUMBER_BYTES
    return Footprint(
        trained=trained,
        weights=NUMBER_BYTES * (whole + adapters),
        gradients=NUMBER_BYTES * trained,
        moments=MOMENTS * NUMBER_BYTES * trained,
        activations=activations,
    )


def adapter_numbers(model: Any, rank: int, frozen_layers: int = 0) -> int:
    """Numbers in low-rank adapters on every linear layer past the frozen ones."""
    return rank * sum(sum(m.weight.shape) for m in cast(dict[str, Any], linear_layers(model, frozen_layers)).values())


def _inputs(linear: Any) -> int:
    """How many numbers a linear layer reads."""
    return int(linear.in_features if isinstance(linear, nn.Linear) else linear.nx)


def _restrict(model: Any, tuning: Tuning) -> int:
    """Leave to train what this way of tuning trains; the numbers in adapters, which are not built.

    An adapter needs its layer's input for the backward pass, as the layer's own weight would; so the weight stands
    for it here.
    """
    if tuning.method == "head":
        body_of(model).requires_grad_(False)
        return 0
    freeze_first(model, tuning.frozen_layers)
    if tuning.method != "lora":
        return 0
    model.requires_grad_(False)
    for module in linear_layers(model, tuning.frozen_layers).values():
        cast(nn.Parameter, module.weight).requires_grad = True
    return adapter_numbers(model, tuning.rank, tuning.frozen_layers)


def _saved(model: Any, rows: int, tokens: int) -> list[int]:
    """Bytes of each tensor that the forward pass saves; none where the pass needs the tensors' contents."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.long)
    body = model.get_decoder() if model.get_output_embeddings() is not None else model
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            answer = body(input_ids=ids, attention_mask=torch.ones_like(ids))  # noqa: F841  its graph holds what is saved
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return []
    return [storage.nbytes() for storage in kept.values()]
