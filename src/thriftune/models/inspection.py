"""What a model folder holds, for a person who chooses: from config, tokenizer files and headers, no weight read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftune.models.description import known_config
from thriftune.models.files import FolderFiles, folder_files, read_object, tensors_of
from thriftune.models.reference import ModelFolder

LORA_RANK = 16
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Inspection:
    """The architecture of a model.

    Args:
        model: where it is, and its plain facts.
        blocks: parameters by block, in order: embeddings, layer.0 …, head; with a head of its task's kind. One block,
            `model`, where layers share their weights.
        freezable: how many of the first layers can be frozen, at most.
        adaptable: the linear layers that adapters go on, by the last part of their names, with how many there are.
        adapter_parameters: of adapters of rank `LORA_RANK` on all of them.
        chat_template: the template's text, or None.
        eos_token: the end-of-text token, or None.
        licence: as the package table or the model card states it, or an empty text.
        dtypes: the types that the weights are stored in.
        disk_bytes: of all files that make up the model.
    """

    model: ModelFolder
    blocks: dict[str, int]
    freezable: int
    adaptable: dict[str, int]
    adapter_parameters: int
    chat_template: str | None
    eos_token: str | None
    licence: str
    dtypes: tuple[str, ...]
    disk_bytes: int


def config_of(model: ModelFolder) -> Any:
    """The model's config, of Transformers.

    Raises:
        BadInput: it cannot be used.
    """
    return known_config(folder_files(model.path))


def inspect(model: ModelFolder, classes: int = 2) -> Inspection:
    """Look at a model without loading its weights.

    Args:
        model: as `resolve` found it.
        classes: that an encoder's head would tell apart.

    Raises:
        BadInput: config, tokenizer files or headers cannot be used.
    """
    from thriftune.models.footprint import adapter_numbers, empty_model
    from thriftune.models.load import has_layer_list, layer_list, linear_layers, parameters_by_block

    files = folder_files(model.path)
    with empty_model(known_config(files), model.kind, classes) as empty:
        separate = has_layer_list(empty)
        whole = {"model": list(empty.parameters())}
        blocks = {
            name: sum(parameter.numel() for parameter in block)
            for name, block in (parameters_by_block(empty) if separate else whole).items()
        }
        adaptable = Counter(name.rpartition(".")[2] for name in linear_layers(empty))
        adapters = adapter_numbers(empty, LORA_RANK)
        freezable = len(layer_list(empty)) - 1 if separate else 0
    settings = _tokenizer_settings(files)
    return Inspection(
        model=model,
        blocks=blocks,
        freezable=freezable,
        adaptable=dict(adaptable),
        adapter_parameters=adapters,
        chat_template=_chat_template(files, settings),
        eos_token=_token(settings.get("eos_token")),
        licence=model.licence or card_licence(model.path / "README.md"),
        dtypes=tuple(sorted({tensor.dtype for path in files.weights for tensor in tensors_of(path)})),
        disk_bytes=sum(path.stat().st_size for path in files.all),
    )


def _tokenizer_settings(files: FolderFiles) -> dict[str, Any]:
    """What the tokenizer's side files state, the later over the earlier."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (files.folder / name).is_file():
            found |= {key: value for key, value in read_object(files.folder / name).items() if value is not None}
    return found


def _chat_template(files: FolderFiles, settings: dict[str, Any]) -> str | None:
    path = files.folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    stated = settings.get("chat_template")
    if stated is None and (files.folder / "chat_template.json").is_file():
        stated = read_object(files.folder / "chat_template.json").get("chat_template")
    if isinstance(stated, list):  # several, each with its name
        named = {str(each.get("name")): each.get("template") for each in stated if isinstance(each, dict)}
        stated = named.get("default") or next(iter(named.values()), None)
    return stated if isinstance(stated, str) and stated else None


def _token(stated: Any) -> str | None:
    token = stated.get("content") if isinstance(stated, dict) else stated
    return token if isinstance(token, str) and token else None


def card_licence(card: Path) -> str:
    """The licence that a model card's front matter states, or an empty text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = _FRONT_MATTER.search(card.read_text(encoding="utf-8", errors="replace"))
        facts = YAML(typ="safe").load(found[1]) if found else None
    except (OSError, YAMLError):
        return ""
    stated = facts.get("license") if isinstance(facts, dict) else None
    name = facts.get("license_name") if isinstance(facts, dict) and stated == "other" else stated
    return ", ".join(map(str, name)) if isinstance(name, list) else str(name or "")
