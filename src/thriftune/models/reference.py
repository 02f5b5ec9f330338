"""Model references (`hub:org/name`, `package:name`, a path, `gemini:name`) and the folders that they stand for."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from thriftune.errors import BadInput
from thriftune.models.cache import cache_folder, file_hash, fingerprint, remembered
from thriftune.models.description import Description, describe
from thriftune.models.files import folder_files
from thriftune.models.gguf import converted_folder, gguf_file
from thriftune.models.hub import hub_folder
from thriftune.models.packages import known_package, packaged_folder

Scheme = Literal["hub", "package", "path", "gemini"]
EXPECTED = "hub:org/name, package:name, a folder such as ./model, or gemini:name"
_HUB_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_FACTS_VERSION = 1  # raise when `Description` or what goes into the content hash changes


@dataclass(frozen=True)
class ModelReference:
    """Where a model comes from, as the project file says it.

    Args:
        scheme: hub, package, path or gemini.
        name: the hub's `org/name`, the package's name, the path, or the endpoint's model name.
        revision: a hub branch, tag or commit.
    """

    scheme: Scheme
    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str, base: Path | None = None) -> ModelReference:
        """Read a reference; whether the model exists is not looked at.

        Args:
            text: as the user wrote it. A text that could be no path otherwise is one if it exists.
            base: what a relative path is relative to, by default the working directory.

        Raises:
            BadInput: it is none of the four kinds.
        """
        scheme, colon, rest = text.strip().partition(":")
        if colon and scheme in ("hub", "package", "gemini"):
            name, _, revision = rest.partition("@")
            if not _HUB_NAME.fullmatch(name) or (revision and scheme != "hub") or rest.endswith("@"):
                raise _not_a_reference(text)
            return cls(scheme, name, revision or None)  # type: ignore[arg-type]
        path = text.strip()
        if path.startswith((".", "/", "~")) or (path and ((base or Path()) / path).exists()):
            return cls("path", path)
        raise _not_a_reference(text)

    def __str__(self) -> str:
        if self.scheme == "path":
            return self.name
        return f"{self.scheme}:{self.name}" + (f"@{self.revision}" if self.revision else "")


def _not_a_reference(text: str) -> BadInput:
    like_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?", text.strip())
    way_out = f"write hub:{text.strip()} for a model on the hub, or ./ before a folder" if like_hub else "name a model"
    return BadInput("this names no model", where="models", found=repr(text), expected=EXPECTED, way_out=way_out)


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine: a folder with config.json, safetensors and a tokenizer, and what it holds.

    Args:
        path: the folder.
        reference: as the user wrote it.
        kind: `encoder` or `decoder`.
        architecture: the class that its config names, such as BertModel.
        model_type: the family, such as bert.
        layers: Transformer layers.
        hidden_size: width of the hidden states.
        vocab_size: rows of the input embedding.
        parameters: numbers in the weights.
        embedding_parameters: those of them in embedding tables, which cost no multiplication.
        max_positions: the longest input in tokens, or None where the architecture sets no limit.
        has_chat_template: whether the tokenizer brings one.
        licence: where the source states one, else an empty text.
        content_hash: SHA-256 over the contents of weights, config and tokenizer.
        commit: of the hub's repository, for a hub reference, else an empty text.
    """

    path: Path
    reference: str
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
    licence: str
    content_hash: str
    commit: str = ""

    @property
    def lasting_reference(self) -> str:
        """The reference as it holds from any folder and at any time: an absolute path; on the hub, the commit."""
        if self.commit:
            return f"{self.reference.partition('@')[0]}@{self.commit}"
        return self.reference if self.reference.startswith(("hub:", "package:")) else str(self.path.absolute())


def resolve(reference: str | ModelReference, cache: Path | None = None, base: Path | None = None) -> ModelFolder:
    """The model that a reference stands for, fetched or converted into the cache on the first call that needs it.

    Args:
        reference: `hub:org/name[@revision]`, `package:name` or a path.
        cache: by default the user's cache folder.
        base: what a relative path is relative to, by default the working directory.

    Raises:
        BadInput: no such model, or a folder that cannot be used; the message names the file and the way out.
    """
    if isinstance(reference, str):
        reference = ModelReference.parse(reference, base)
    cache = cache or cache_folder()
    path = _located(reference, cache, base)
    licence = known_package(reference.name).licence if reference.scheme == "package" else ""
    facts = _facts(path, cache)
    description = Description(**facts["description"])
    return ModelFolder(
        path=path,
        reference=str(reference),
        licence=licence,
        content_hash=facts["hash"],
        commit=path.name if reference.scheme == "hub" else "",  # a snapshot's folder is named for its commit
        **asdict(description),
    )


def pinned(text: str, base: Path | None = None) -> str:
    """A reference that goes on meaning what it means now: a hub reference with the commit, any other as it is.

    Raises:
        BadInput: as `resolve` does.
    """
    reference = ModelReference.parse(text, base)
    return resolve(reference, base=base).lasting_reference if reference.scheme == "hub" else text


def _located(reference: ModelReference, cache: Path, base: Path | None) -> Path:
    match reference.scheme:
        case "hub":
            return _ready(hub_folder(reference.name, reference.revision), cache)
        case "package":
            if known_package(reference.name).holds != "model":
                raise BadInput(
                    "this package holds data, not a model",
                    where=str(reference),
                    found=reference.name,
                    expected=EXPECTED,
                    way_out="name a model",
                )
            return _ready(packaged_folder(reference.name, cache), cache)
        case "gemini":
            raise BadInput(
                "a managed model is not on this machine",
                where=str(reference),
                found="gemini:, which its provider trains and runs",
                expected="a model that runs here: hub:org/name, package:name or a folder",
                way_out="name another model",
            )
        case "path":
            return _ready(Path(os.path.abspath((base or Path()) / Path(reference.name).expanduser())), cache)  # noqa: PTH100


def _ready(path: Path, cache: Path) -> Path:
    found = gguf_file(path)
    return path if found is None else converted_folder(found, cache)


def _facts(path: Path, cache: Path) -> dict[str, Any]:
    files = folder_files(path)
    key = f"{_FACTS_VERSION} {version('transformers')} {fingerprint(files.all)}"

    def look() -> dict[str, Any]:
        return {"description": asdict(describe(files)), "hash": content_hash(files.all)}

    return remembered(cache, hashlib.sha256(key.encode()).hexdigest(), look)


def content_hash(files: list[Path]) -> str:
    """SHA-256 over the names and contents of files, whatever their order and folder."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda file: file.name):
        digest.update(f"{path.name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()
