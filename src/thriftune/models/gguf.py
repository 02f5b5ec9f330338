"""GGUF files, converted once into a folder that Transformers loads in a second."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from thriftune.errors import BadInput
from thriftune.models.cache import built_once, file_hash, fingerprint, remembered
from thriftune.models.quiet import quiet_transformers

UNREADABLE = (ValueError, KeyError, IndexError, OverflowError, NotImplementedError, struct.error)
"""What reading a damaged or unknown file raises, by where the damage is."""

_MAGIC = b"GGUF"
_CONVERSION_VERSION = 1  # raise when the result of a conversion changes


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one in a folder without a config.json.

    Raises:
        BadInput: the folder holds several.
    """
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise BadInput(
            "the folder holds several GGUF files",
            where=str(path),
            found=", ".join(file.name for file in found),
            expected="one",
            way_out=f"name one of them, such as {found[0]}",
        )
    return found[0] if found else None


def converted_folder(file: Path, cache: Path) -> Path:
    """The folder with a GGUF file's model as fp32 safetensors and its tokenizer, made on the first call for it.

    Args:
        file: the GGUF file.
        cache: the user's cache.

    Raises:
        BadInput: the file is no GGUF file, is damaged, or holds an architecture that is not known.
    """
    with file.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            raise _unusable(file, "other first bytes", "a file that begins with GGUF")
    key = hashlib.sha256(f"gguf {fingerprint([file])}".encode()).hexdigest()
    content = remembered(cache, key, lambda: {"sha256": file_hash(file)})["sha256"]
    target = cache / "converted" / f"{file.stem}-{content[:12]}-{_CONVERSION_VERSION}"
    return built_once(target, lambda partial: _convert(file, partial))


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"converting {file.name} to safetensors, once (about half a minute)", file=sys.stderr, flush=True)
    source: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        with quiet_transformers(), redirect_stderr(io.StringIO()):  # its bar obeys no other switch
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
            read = AutoModelForCausalLM.from_pretrained(file.parent, **source)
    except (*UNREADABLE, OSError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _unusable(file, first_line, "a whole GGUF file of an architecture that Transformers reads") from error
    with quiet_transformers():
        _rebuilt(read).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _rebuilt(read: Any) -> Any:
    # A model read from GGUF remembers that it was quantised and refuses to be saved; its numbers are plain fp32.
    import torch

    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):  # the numbers are taken over, not copied
        fresh = type(read)(type(read.config)(**settings))
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = read.generation_config
    return fresh


def _unusable(file: Path, found: str, expected: str) -> BadInput:
    return BadInput(
        "the GGUF file cannot be used",
        where=str(file),
        found=found,
        expected=expected,
        way_out="fetch the file again, or give a folder with the model's safetensors",
    )
