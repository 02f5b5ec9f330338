"""The cache holds whole folders or none, whoever dies and whoever comes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thriftune.errors import BadInput
from thriftune.models.cache import CACHE_VARIABLE, built_once, cache_folder, fingerprint, remembered

BUILD = """
import os, signal, sys, time
from pathlib import Path
from thriftune.models.cache import built_once

def build(folder):
    (folder / "first").write_text("1")
    print("built", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    (folder / "second").write_text("2")

built_once(Path(sys.argv[1]), build)
"""


def _process(target: Path, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD, str(target), ending], stdout=subprocess.PIPE, text=True)


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "thriftune"


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "a").mkdir()
        (folder / "a" / "file").write_text("x")

    target = tmp_path / "x" / "target"
    assert built_once(target, build) == built_once(target, build) == target
    assert len(built) == 1
    assert (target / "a" / "file").read_text() == "x"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "file").write_text("x")
        raise KeyError("defect")

    with pytest.raises(KeyError):
        built_once(tmp_path / "target", build)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert _process(target, "die").wait() == -9
    assert not target.exists() and list(tmp_path.glob(".target.partial-*"))
    assert _process(target, "live").wait() == 0
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]
    assert not list(tmp_path.glob(".target.partial-*"))


def test_of_two_processes_at_once_one_builds(tmp_path: Path) -> None:
    target = tmp_path / "target"
    processes = [_process(target, "live") for _ in range(3)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == ["", "", "built\n"]
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cache cannot be written") as caught:
        built_once(tmp_path / "file" / "target", lambda folder: None)
    assert CACHE_VARIABLE in caught.value.way_out


def test_facts_are_worked_out_once_and_again_when_their_memo_is_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"n": 3}

    assert remembered(tmp_path, "k", compute) == remembered(tmp_path, "k", compute) == {"n": 3}
    assert len(calls) == 1
    (tmp_path / "facts" / "k.json").write_text('{"n": ')
    assert remembered(tmp_path, "k", compute) == {"n": 3}
    assert len(calls) == 2


def test_a_fingerprint_follows_every_write(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("a")
    before, entry = fingerprint([file]), file.stat()
    assert fingerprint([file]) == before
    other = tmp_path / "g"
    other.write_text("b")
    os.utime(other, ns=(entry.st_atime_ns, entry.st_mtime_ns))
    other.replace(file)
    assert fingerprint([file]) != before
