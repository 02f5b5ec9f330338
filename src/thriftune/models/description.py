"""What a model folder holds, read from its config and the headers of its weights, without loading it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from thriftune.errors import BadInput
from thriftune.models.files import FolderFiles, Tensor, read_object, tensors_of
from thriftune.models.quiet import quiet_transformers

POSITIONS_AFTER_PADDING = frozenset(
    (
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "camembert",
        "data2vec-text",
        "xmod",
        "longformer",
        "mpnet",
        "ibert",
        "esm",
    )
)
"""Families that number positions from pad_token_id + 1 (`create_position_ids_from_input_ids` in Transformers), so
that as many rows of the position table are never reached."""

_EMBEDDING = re.compile(
    r"(^|\.)(word_embeddings?|position_embeddings|token_type_embeddings|wte|wpe|embed_tokens|embed_positions|embed_in"
    r"|tok_embeddings|mask_emb)(\.weight)?$"
)


@dataclass(frozen=True)
class Description:
    """What a model is; the fields are `ModelFolder`'s."""

    kind: Literal["encoder", "decoder"]
    architecture: str
    model_type: str
    layers: int
    hidden_size: int
    vocab_size: int
    parameters: int
    embedding_parameters: int
    max_positions: int | None
    has_chat_template: bool


def describe(files: FolderFiles) -> Description:
    """Read a folder's config and the headers of all its weights.

    Raises:
        BadInput: an architecture that is not known here or is no encoder or decoder of text, a config that lacks
            what every model has, or weights that are damaged.
    """
    config = known_config(files)
    text = config.get_text_config()
    tensors = [tensor for path in files.weights for tensor in tensors_of(path)]
    embedding = [tensor for tensor in tensors if _EMBEDDING.search(tensor.name)]
    return Description(
        kind=_kind(files, config),
        architecture=_architecture(files, config),
        model_type=str(config.model_type),
        layers=_positive(files, text, "num_hidden_layers"),
        hidden_size=_positive(files, text, "hidden_size"),
        vocab_size=_positive(files, text, "vocab_size"),
        parameters=_count(tensors),
        embedding_parameters=_count(embedding),
        max_positions=_max_positions(text),
        has_chat_template=_has_chat_template(files),
    )


def _count(tensors: list[Tensor]) -> int:
    return sum(tensor.size for tensor in tensors if tensor.dtype[0] in "FB" and tensor.dtype != "BOOL")


def known_config(files: FolderFiles) -> Any:
    """The folder's config as the class of its family.

    Raises:
        BadInput: the family is not known to the installed Transformers, with or without code of its own.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

    where = files.folder / "config.json"
    family = files.config.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        remote = "auto_map" in files.config
        raise BadInput(
            "the model needs code that comes with it, which Thriftune does not run"
            if remote
            else "the architecture is not known",
            where=str(where),
            found=f"model_type {family!r}" + (", auto_map" if remote else ""),
            expected="a model_type that the installed Transformers knows by itself",
            way_out="choose another model" if remote else "update transformers, or choose another model",
        )
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        raise BadInput(
            "the config cannot be used",
            where=str(where),
            found=" ".join(str(error).split()) or type(error).__name__,
            expected=f"a config of a {family} model",
            way_out="fetch the model again",
        ) from error


def _kind(files: FolderFiles, config: Any) -> Literal["encoder", "decoder"]:
    from transformers.models.auto import modeling_auto

    family = config.model_type
    causal = family in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # Families such as BERT and XLNet are in the causal table too, as they can be run from left to right; being in
    # one of these two tells them from those that are decoders and nothing else.
    bidirectional = (
        family in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or family in modeling_auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES
    )
    classifies = family in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if getattr(config, "is_encoder_decoder", False) or not (causal or classifies):
        raise BadInput(
            "this version tunes encoders and decoders of text only",
            where=str(files.folder / "config.json"),
            found=f"model_type {family!r}",
            expected="an encoder such as BERT, or a decoder such as Llama",
            way_out="choose another model",
        )
    return "decoder" if causal and (not bidirectional or getattr(config, "is_decoder", False)) else "encoder"


def _architecture(files: FolderFiles, config: Any) -> str:
    named = files.config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else type(config).__name__.removesuffix("Config")


def _positive(files: FolderFiles, config: Any, name: str) -> int:
    value = getattr(config, name, None)
    if not isinstance(value, int) or value <= 0:
        raise BadInput(
            "the config lacks what every model has",
            where=str(files.folder / "config.json"),
            found=f"{name} = {value!r}",
            expected=f"{name}, a whole number above 0",
            way_out="fetch the model again",
        )
    return value


def _max_positions(config: Any) -> int | None:
    rows = getattr(config, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows <= 0:
        return None
    reserved = (config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PADDING else 0
    return rows - reserved


def _has_chat_template(files: FolderFiles) -> bool:
    names = {path.name for path in files.tokenizer}
    if names & {"chat_template.jinja", "chat_template.json"}:
        return True
    settings = files.folder / "tokenizer_config.json"
    return settings.name in names and bool(read_object(settings).get("chat_template"))
