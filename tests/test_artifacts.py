from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from thriftune.artifacts import (
    MANIFEST,
    Artifact,
    ArtifactStore,
    NotWhole,
    read_manifest,
    read_whole,
    recipe_key,
    sweep,
    write_file_atomic,
    write_folder,
)
from thriftune.clock import ManualClock
from thriftune.errors import BadInput
from thriftune.store import Store, open_store

CRASH_POINTS = ("started", "written", "synced", "renamed", "recorded")


def write_two(folder: Path) -> None:
    (folder / "rows.txt").write_text("one\ntwo\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 100)


def never(_: Path) -> None:
    raise AssertionError("it was built again")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/thriftune.db")


def artifacts(tmp_path: Path, store: Store) -> ArtifactStore:
    """The project's artifacts as a new process finds them."""
    return ArtifactStore(tmp_path, store, ManualClock(), "p")


def build(tmp_path: Path, store: Store, write: Callable[[Path], None] = write_two, key: str = "key") -> Artifact:
    return artifacts(tmp_path, store).build("prepare", key, {"stage": "prepare"}, write)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


json_options = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5)


@given(json_options, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_a_recipe_s_key_does_not_depend_on_the_order_of_its_parts(
    options: dict[str, Any], inputs: dict[str, str]
) -> None:
    turned = dict(reversed(list(options.items())))
    key = recipe_key("train", 1, inputs, options, {"torch": "2"})
    assert key == recipe_key("train", 1, dict(reversed(list(inputs.items()))), turned, {"torch": "2"})


def test_a_recipe_s_key_depends_on_each_of_its_parts() -> None:
    recipes: list[tuple[Any, ...]] = [
        ("train", 1, {"data": "a"}, {"rate": 0.1}, {"torch": "2"}),
        ("evaluate", 1, {"data": "a"}, {"rate": 0.1}, {"torch": "2"}),
        ("train", 2, {"data": "a"}, {"rate": 0.1}, {"torch": "2"}),
        ("train", 1, {"data": "b"}, {"rate": 0.1}, {"torch": "2"}),
        ("train", 1, {"date": "a"}, {"rate": 0.1}, {"torch": "2"}),
        ("train", 1, {"data": "a"}, {"rate": 0.2}, {"torch": "2"}),
        ("train", 1, {"data": "a"}, {"rate": 0.1}, {"torch": "3"}),
    ]
    assert len({recipe_key(*recipe) for recipe in recipes}) == len(recipes)


def test_a_recipe_s_key_is_the_same_on_every_machine() -> None:
    key = recipe_key("train", 1, {"data": "ä"}, {"rate": 0.1}, {"torch": "2"})
    assert key == "0557ee8cc9c4770ddeb933d177a863d0"
    with pytest.raises(ValueError, match="JSON"):
        recipe_key("train", 1, {}, {"rate": float("nan")}, {})
    with pytest.raises(TypeError):
        recipe_key("train", 1, {}, {"path": Path()}, {})


def test_an_artifact_is_built_once_and_then_reused(tmp_path: Path, store: Store) -> None:
    first = build(tmp_path, store)
    again = build(tmp_path, store, never)
    assert not first.reused and again.reused
    assert again.content_hash == first.content_hash and again.folder == first.folder
    assert (first.folder / "deep" / "weights.bin").stat().st_size == 25_600
    assert names(first.folder.parent) == ["key"]


def test_equal_content_has_one_hash_whatever_the_recipe(tmp_path: Path, store: Store) -> None:
    def other(folder: Path) -> None:
        write_two(folder)
        (folder / "rows.txt").write_text("one\nTWO\n")

    one, two, three = (
        build(tmp_path, store),
        build(tmp_path, store, key="two"),
        build(tmp_path, store, other, key="three"),
    )
    assert one.content_hash == two.content_hash != three.content_hash


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path, store: Store) -> None:
    def fail(folder: Path) -> None:
        write_two(folder)
        raise KeyError("of the test")

    with pytest.raises(KeyError, match="of the test"):
        build(tmp_path, store, fail)
    assert names(tmp_path / "artifacts" / "prepare") == []
    assert artifacts(tmp_path, store).find("prepare", "key") is None


def damage_missing(folder: Path) -> None:
    (folder / "rows.txt").unlink()


def damage_size(folder: Path) -> None:
    (folder / "rows.txt").write_text("one\n")


def damage_content(folder: Path) -> None:
    (folder / "rows.txt").write_text("one\nTwo\n")


def damage_extra(folder: Path) -> None:
    (folder / "more.txt").write_text("more")


def damage_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def damage_all(folder: Path) -> None:
    shutil.rmtree(folder)


DAMAGES = {
    damage_missing: "rows.txt is missing",
    damage_size: "rows.txt has 4 bytes, not 8",
    damage_content: "rows.txt has another content",
    damage_extra: "more.txt does not belong to it",
    damage_manifest: "its manifest cannot be read",
    damage_all: "its folder is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_artifact_is_told_of_and_built_again(
    tmp_path: Path, store: Store, damage: Callable[[Path], None], recorded: bool
) -> None:
    first = build(tmp_path, store)
    if not recorded:
        artifacts(tmp_path, store)._forget("prepare", "key")
    damage(first.folder)
    again = build(tmp_path, store)
    assert not again.reused and again.content_hash == first.content_hash
    assert DAMAGES[damage] in again.finding or (not recorded and damage is damage_all and not again.finding)
    assert build(tmp_path, store, never).reused
    assert names(first.folder.parent) == ["key"]


def test_a_manifest_that_was_changed_with_its_files_is_found_by_the_record(tmp_path: Path, store: Store) -> None:
    first = build(tmp_path, store)
    shutil.rmtree(first.folder)
    write_folder(first.folder, lambda folder: (folder / "rows.txt").write_text("three\n") and None)
    again = build(tmp_path, store)
    assert "recorded was" in again.finding and again.content_hash == first.content_hash


def test_sizes_are_looked_at_each_time_and_hashes_once_a_process(tmp_path: Path, store: Store) -> None:
    mine = artifacts(tmp_path, store)
    first = mine.build("prepare", "key", {}, write_two)
    assert mine.find("prepare", "key") is not None
    damage_size(first.folder)
    assert mine.find("prepare", "key") is None


def test_a_whole_folder_without_a_record_is_adopted(tmp_path: Path, store: Store) -> None:
    first = build(tmp_path, store)
    artifacts(tmp_path, store)._forget("prepare", "key")
    again = build(tmp_path, store, never)
    assert again.reused and again.content_hash == first.content_hash
    fresh = open_store(f"sqlite:///{tmp_path}/moved.db")  # a state folder that lost its database
    assert build(tmp_path, fresh, never).reused


def test_projects_do_not_find_each_other_s_records(tmp_path: Path, store: Store) -> None:
    build(tmp_path, store)
    other = ArtifactStore(tmp_path / "other", store, ManualClock(), "q")
    assert other.find("prepare", "key") is None


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_at_any_point_leaves_a_whole_artifact_or_none(tmp_path: Path, store: Store, point: str) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import test_artifacts as t;"
        "root = Path(sys.argv[1]); t.build(root, t.open_store(f'sqlite:///{root}/thriftune.db'))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    killed = subprocess.run(command, check=False, env=os.environ | {"THRIFTUNE_CRASH_AT": f"artifact.{point}"})
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "artifacts" / "prepare"
    whole = point in ("renamed", "recorded")
    assert (folder / "key").exists() == whole and len(names(folder)) == 1
    after = build(tmp_path, store, never if whole else write_two)
    assert after.reused == whole and after.finding == ""
    assert names(folder) == ["key"]
    read_whole(after.folder)


@pytest.mark.parametrize("point", CRASH_POINTS[:-1])
def test_a_kill_while_a_checkpoint_is_written_keeps_the_one_before(tmp_path: Path, point: str) -> None:
    program = (
        "import sys; from pathlib import Path; from thriftune.artifacts import write_folder\n"
        "for step in (1, 2): write_folder(Path(sys.argv[1]) / f'step-{step}', lambda folder:"
        " (folder / 'weights').write_text(f'{step}') and None, crash='checkpoint')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "steps")]
    killed = subprocess.run(command, check=False, env=os.environ | {"THRIFTUNE_CRASH_AT": f"checkpoint.{point}:2"})
    assert killed.returncode == -signal.SIGKILL
    newest = max((tmp_path / "steps").glob("step-*"))
    read_whole(newest)
    assert (newest / "weights").read_text() == ("2" if point == "renamed" else "1")
    swept = sweep(tmp_path / "steps")
    assert len(swept) == (0 if point == "renamed" else 1)
    assert [name for name in names(tmp_path / "steps") if name.startswith(".")] == []


def test_what_a_live_process_is_writing_is_not_swept(tmp_path: Path, store: Store) -> None:
    def sweep_meanwhile(folder: Path) -> None:
        write_two(folder)
        assert sweep(folder.parent) == []

    build(tmp_path, store, sweep_meanwhile)
    (tmp_path / "artifacts" / "prepare" / ".somebody-else.tmp").write_text("not ours")
    assert sweep(tmp_path / "artifacts" / "prepare") == []


def test_a_folder_is_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    target = tmp_path / "step-1"
    write_folder(target, write_two)
    manifest = write_folder(target, lambda folder: (folder / "rows.txt").write_text("new") and None)
    assert read_manifest(target) == manifest and names(target) == [MANIFEST, "rows.txt"]
    with pytest.raises(FileExistsError):
        write_folder(target, write_two, replace=False)
    assert read_manifest(target) == manifest and names(tmp_path) == ["step-1"]


def test_an_unreadable_input_is_not_mistaken_for_the_folder(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.csv")

    with pytest.raises(PermissionError):
        write_folder(tmp_path / "target", fail)


def test_two_that_build_one_recipe_at_once_end_with_one_artifact(tmp_path: Path, store: Store) -> None:
    def be_overtaken(folder: Path) -> None:
        write_two(folder)
        build(tmp_path, store)

    late = build(tmp_path, store, be_overtaken)
    assert late.content_hash == build(tmp_path, store, never).content_hash
    assert names(tmp_path / "artifacts" / "prepare") == ["key"]


def test_a_folder_with_a_link_is_not_whole(tmp_path: Path) -> None:
    def link(folder: Path) -> None:
        (folder / "link").symlink_to(tmp_path)

    with pytest.raises(NotWhole, match="link is a link"):
        write_folder(tmp_path / "target", link)
    assert names(tmp_path) == []


def test_a_file_holds_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    for content in (b"old", b"new"):
        write_file_atomic(path, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["report.json"]


@pytest.mark.parametrize(
    ("number", "what"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "this cannot be written")],
)
def test_a_writer_s_full_disk_is_one_clear_message(tmp_path: Path, number: int, what: str) -> None:
    def fail(folder: Path) -> None:
        write_two(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(BadInput) as caught:
        write_folder(tmp_path / "target", fail)
    assert caught.value.what == what and caught.value.way_out and str(tmp_path / "target") == caught.value.where
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_real_full_disk_is_one_clear_message_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(BadInput, match="the disk is full"):
            write_folder(disk / "target", lambda folder: (folder / "big").write_bytes(b"x" * 2_000_000) and None)
        tensors = {"weights": np.zeros(2_000_000, dtype=np.uint8)}
        with pytest.raises(BadInput, match="the disk is full"):
            write_folder(disk / "target", lambda folder: save_file(tensors, folder / "model.safetensors"))
        with pytest.raises(BadInput, match="the disk is full"):
            write_file_atomic(disk / "big", b"x" * 2_000_000)
        assert names(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
