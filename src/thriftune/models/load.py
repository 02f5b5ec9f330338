"""Loading models: local files only, safetensors only, no code but Transformers' own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from thriftune.errors import BadInput
from thriftune.models.attention import make_attention_quick
from thriftune.models.quiet import quiet_transformers

DROPOUT_SETTINGS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "summary_last_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
)
"""The names under which the families' configs keep their dropout rates."""

Head = Literal["one", "several", "token"]
"""What a classification head tells: one label of a text, any number of them, or one label of each of its tokens."""

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, a `PreTrainedTokenizerFast`.

    Raises:
        BadInput: its files cannot be read, or need a package that is not installed.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except Exception as error:  # the Rust tokenizers library raises bare Exception for a damaged file
        if type(error) is not Exception and not isinstance(error, ValueError | OSError | ImportError | KeyError):
            raise
        raise BadInput(
            "the tokenizer cannot be loaded",
            where=str(folder),
            found=_first_line(error),
            expected="a tokenizer.json that the installed Transformers reads",
            way_out="fetch the model again, or save its tokenizer as tokenizer.json",
        ) from error


def load_word_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, for texts that are given word by word.

    Families whose tokens tell whether a blank stands before them (RoBERTa's) read every word as if one did.

    Raises:
        BadInput: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(folder)
    if getattr(tokenizer, "add_prefix_space", True):
        return tokenizer
    with quiet_transformers():
        return type(tokenizer).from_pretrained(folder, add_prefix_space=True, **_LOCAL)


def load_encoder_classifier(
    folder: Path, labels: list[str], dropout: float | None = None, head: Head = "one"
) -> nn.Module:
    """An encoder in fp32 with a classification head.

    The head is fresh, drawn from torch's global generator (seed that first), unless the folder's own head was
    trained for these very labels in this order.

    Args:
        folder: a model folder.
        labels: the classes, in the order of the head's outputs.
        dropout: replaces every dropout rate of the config; None keeps them.
        head: what it tells.

    Raises:
        BadInput: the weights do not fit the config.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    config = _config(folder)
    own_head = _labels_of(config) == labels
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    if head != "token":
        config.problem_type = f"{'single' if head == 'one' else 'multi'}_label_classification"
    for name in DROPOUT_SETTINGS:
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    family = AutoModelForTokenClassification if head == "token" else AutoModelForSequenceClassification
    model = _load(family, folder, torch.float32, config=config)
    if not own_head:
        _renew_head(model)
    return cast(nn.Module, model)


def has_head_for(folder: Path, labels: list[str]) -> bool:
    """Whether a folder's own head was trained for these very labels in this order."""
    return _labels_of(_config(folder)) == labels


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    with quiet_transformers():
        return AutoConfig.from_pretrained(folder, **_LOCAL)


def _labels_of(config: Any) -> list[str]:
    return [config.id2label[i] for i in sorted(config.id2label)]


def _renew_head(model: Any) -> None:
    """Draw the weights outside the encoder anew, as Transformers draws those that a checkpoint lacks."""
    child: Any
    for child in head_modules(model).values():
        for part in [child, *child.modules()]:
            part._is_hf_initialized = False
        for parameter in child.parameters():
            parameter._is_hf_initialized = False
        child.apply(model._init_weights)


def load_encoder(folder: Path) -> nn.Module:
    """An encoder without a head, in fp32.

    Raises:
        BadInput: the weights do not fit the config.
    """
    from transformers import AutoModel

    return cast(nn.Module, _load(AutoModel, folder, torch.float32))


def load_decoder(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A decoder with its vocabulary projection.

    Raises:
        BadInput: the weights do not fit the config.
    """
    from transformers import AutoModelForCausalLM

    return cast(nn.Module, _load(AutoModelForCausalLM, folder, dtype))


def _load(family: Any, folder: Path, dtype: torch.dtype, **options: Any) -> Any:
    try:
        with quiet_transformers():
            model, keys = family.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **_LOCAL,
                **options,
            )
    except (OSError, ValueError) as error:
        raise _does_not_fit(folder, _first_line(error), "weights that fit config.json") from error
    _check_keys(folder, model, keys)
    make_attention_quick(model)
    return model


def _check_keys(folder: Path, model: Any, keys: dict[str, Any]) -> None:
    body = _body_prefixes(model)
    missing = sorted(key for key in keys["missing_keys"] if key.startswith(body))
    if missing:
        raise _does_not_fit(folder, f"no {missing[0]}{_and_more(missing)}", "every weight of the model's layers")
    misfits = sorted(entry for entry in keys["mismatched_keys"] if entry[0].startswith(body))
    if misfits:
        name, found, expected = misfits[0]
        raise _does_not_fit(
            folder, f"{name} of shape {tuple(found)}{_and_more(misfits)}", f"shape {tuple(expected)}, by config.json"
        )
    if not has_layer_list(model):
        return
    layers = len(layer_list(model))
    numbered = re.compile(rf"(?:^|\.){re.escape(_layer_path(model).rpartition('.')[2])}\.(\d+)\.")
    surplus = sorted(
        key for key in keys["unexpected_keys"] if (at := numbered.search(key)) and int(at.group(1)) >= layers
    )
    if surplus:
        raise _does_not_fit(folder, f"{surplus[0]}{_and_more(surplus)}", f"{layers} layers, by config.json")


def _body_prefixes(model: Any) -> tuple[str, ...]:
    """Where the weights that no one may draw at random are: all but pooler and classification head."""
    if type(model).__name__.endswith(("ForSequenceClassification", "ForTokenClassification")):
        inner = model.base_model
        return tuple(
            f"{model.base_model_prefix}.{name}" for name, _ in inner.named_children() if name != "pooler"
        ) + tuple(f"{model.base_model_prefix}.{name}" for name, _ in inner.named_parameters(recurse=False))
    names = [name for name, _ in model.named_children()] + [name for name, _ in model.named_parameters(recurse=False)]
    return tuple(name for name in names if name != "pooler")


def _does_not_fit(folder: Path, found: str, expected: str) -> BadInput:
    return BadInput(
        "the weights do not fit the model's config",
        where=str(folder),
        found=found,
        expected=expected,
        way_out="fetch config.json and the weights again, from one source",
    )


def _and_more(items: list[Any]) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def layer_list(model: nn.Module) -> nn.ModuleList:
    """The model's Transformer layers, first to last, for any family and with adapters or not.

    Raises:
        BadInput: the architecture has no such list (ALBERT's layers share their weights, for one).
    """
    return cast(nn.ModuleList, model.get_submodule(_layer_path(model)))


def has_layer_list(model: nn.Module) -> bool:
    """Whether the model's layers are separate, so that some can be frozen (ALBERT's share their weights)."""
    return bool(_layer_lists(model))


def _layer_lists(model: Any) -> dict[str, nn.ModuleList]:
    layers = model.config.get_text_config().num_hidden_layers
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == layers}


def _layer_path(model: Any) -> str:
    lists = _layer_lists(model)
    if not lists:
        raise BadInput(
            "the architecture has no list of separate layers, so none of them can be frozen alone",
            where=type(model).__name__,
            found="no list of layers",
            expected=f"{model.config.get_text_config().num_hidden_layers} layers",
            way_out="freeze no layers, or choose another model",
        )
    # Adapters and mixtures of experts may hold lists of the same length inside; the layers hold most of the weights.
    return max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()))


def linear_layers(model: Any, frozen_layers: int = 0) -> dict[str, nn.Module]:
    """The layers that adapters go on, by name: every linear one but the vocabulary projection.

    Args:
        model: of Transformers.
        frozen_layers: how many of the first layers get none.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D)  # GPT-2's are the latter
    frozen = list(layer_list(model))[:frozen_layers] if frozen_layers else []
    left_out = {module for layer in frozen for module in layer.modules()} | {model.get_output_embeddings()}
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds) and m not in left_out}


def body_of(model: nn.Module) -> nn.Module:
    """What stands under the head and was trained before, with adapters on it or without."""
    whole: Any = model
    if hasattr(whole, "get_base_model"):
        whole = whole.get_base_model()
    return cast(nn.Module, whole.base_model)


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules beside the body, by name, of a model without adapters."""
    body = body_of(model)
    return {name: child for name, child in model.named_children() if child is not body}


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters outside the body: a projection that is tied to the body's embedding is the body's."""
    inside = {id(parameter) for parameter in body_of(model).parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inside]


def parameters_by_block(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters by depth: `embeddings`, `layer.0` … `layer.n-1`, `head`, every parameter once.

    `embeddings` are the embedding tables and whatever stands before the first layer; `head` is what stands after
    the last. A vocabulary projection that is tied to the embedding is the embedding.
    """
    path = _layer_path(model)
    blocks: dict[str, list[nn.Parameter]] = {"embeddings": []}
    blocks |= {f"layer.{i}": [] for i in range(len(layer_list(model)))} | {"head": []}
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    reached = False
    for name, parameter in model.named_parameters():
        if name.startswith(f"{path}."):
            reached = True
            blocks["layer." + name[len(path) + 1 :].partition(".")[0]].append(parameter)
        elif not reached or name.rpartition(".")[0] in tables:
            blocks["embeddings"].append(parameter)
        else:
            blocks["head"].append(parameter)
    return blocks
