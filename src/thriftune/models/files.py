"""The files of a model folder: which there are, which are missing, and the headers of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thriftune.errors import BadInput

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
)
TOKENIZER_SIDE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_LONGEST_HEADER_BYTES = 100_000_000  # the limit that the safetensors format sets itself


@dataclass(frozen=True)
class FolderFiles:
    """The files that make up a model.

    Args:
        folder: where they are.
        config: the content of config.json.
        weights: the safetensors files, in the order of their names.
        tokenizer: the tokenizer's files.
    """

    folder: Path
    config: dict[str, Any]
    weights: list[Path]
    tokenizer: list[Path]

    @property
    def all(self) -> list[Path]:
        """Every file that determines what the model says."""
        return [self.folder / "config.json", *self.weights, *self.tokenizer]


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file: its name, its type (such as F32) and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        product = 1
        for side in self.shape:
            product *= side
        return product


def folder_files(folder: Path) -> FolderFiles:
    """The files of a model folder.

    Raises:
        BadInput: no folder, no config.json, no safetensors, a shard that is missing, or no tokenizer.
    """
    if not folder.is_dir():
        raise BadInput(
            "there is no such model folder",
            where=str(folder),
            found="a file" if folder.exists() else "nothing",
            expected="a folder with config.json, model.safetensors and tokenizer.json",
            way_out="correct the path",
        )
    if not (folder / "config.json").is_file():
        raise _no_config(folder)
    config = read_object(folder / "config.json")
    return FolderFiles(folder, config, _weight_files(folder), _tokenizer_files(folder))


def _no_config(folder: Path) -> BadInput:
    adapter = (folder / "adapter_config.json").is_file()
    return BadInput(
        "the folder holds an adapter, not a whole model" if adapter else "the folder holds no model",
        where=str(folder / "config.json"),
        found="adapter_config.json only" if adapter else "no such file",
        expected="config.json, model.safetensors and tokenizer.json in one folder",
        way_out="merge the adapter into its base model first" if adapter else "give the folder that holds config.json",
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BadInput: it cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(
            "the file is not valid JSON",
            where=str(path),
            found=str(error),
            expected="a JSON object",
            way_out="fetch the model again",
        ) from error
    except OSError as error:
        raise BadInput(
            "the file cannot be read",
            where=str(path),
            found=error.strerror or str(error),
            expected="a file that this user may read",
            way_out="mend its permissions or fetch the model again",
        ) from error
    if not isinstance(content, dict):
        raise BadInput(
            "the file holds no JSON object",
            where=str(path),
            found=type(content).__name__,
            expected="a JSON object",
            way_out="fetch the model again",
        )
    return content


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise _no_weights(folder)
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(
            "the index of the weights names no file",
            where=str(index),
            found="no weight_map",
            expected="a weight_map from tensors to files",
            way_out="fetch the model again",
        )
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise BadInput(
                "a shard of the weights is missing",
                where=str(folder / name),
                found="no such file",
                expected=f"{len(shards)} files named in {INDEX}: {', '.join(shards)}",
                way_out="fetch the model again",
            )
    return [folder / name for name in shards]


def _no_weights(folder: Path) -> BadInput:
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        return BadInput(
            "the weights are pickled; unpacking them could run any code, so Thriftune never does",
            where=str(folder / pickled[0]),
            found=", ".join(pickled),
            expected=f"{WEIGHTS}, or {INDEX} with its shards",
            way_out="take the model's safetensors version, or convert it where you trust its source",
        )
    return BadInput(
        "the folder holds no weights",
        where=str(folder / WEIGHTS),
        found="no such file",
        expected=f"{WEIGHTS}, or {INDEX} with its shards",
        way_out="fetch the model again",
    )


def _tokenizer_files(folder: Path) -> list[Path]:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise BadInput(
            "the model has no tokenizer",
            where=str(folder / "tokenizer.json"),
            found="no such file",
            expected=f"one of {', '.join(TOKENIZER_FILES)}",
            way_out="copy the tokenizer's files into the folder",
        )
    named = [folder / name for name in (*TOKENIZER_FILES, *TOKENIZER_SIDE_FILES)]
    return [path for path in named if path.is_file()]


def tensors_of(path: Path) -> list[Tensor]:
    """The tensors that a safetensors file's header lists; the numbers themselves are not read.

    Raises:
        BadInput: the header cannot be read, or the file is shorter or longer than it says.

    Source: the safetensors format: 8 bytes of little-endian length, a JSON header, then the data.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER_BYTES, size - 8):
                raise _damaged(path, f"{size} bytes", "a header and the data that it lists")
            header = json.loads(file.read(length))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = [Tensor(name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()]
        data_bytes = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"a header that cannot be read ({error})", "a safetensors header") from error
    except OSError as error:
        raise _damaged(path, error.strerror or str(error), "a file that this user may read") from error
    if size != 8 + length + data_bytes:
        raise _damaged(path, f"{size} bytes", f"{8 + length + data_bytes} bytes, by its own header")
    return tensors


def _damaged(path: Path, found: str, expected: str) -> BadInput:
    return BadInput(
        "the weights are damaged or cut off",
        where=str(path),
        found=found,
        expected=expected,
        way_out="fetch the model again",
    )
