"""Bad input through the command line: exit 2 with one message that says what, where, found, expected and the way out;
nothing half-written. A defect of ours exits 1 with a crash file, so that no catch-all can pass for an error message.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from line_for_tests import Line, classifier
from models_for_tests import bert_folder

NOBODY = 65534


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def line(tmp_path, model):
    return classifier(tmp_path / "films", model, tmp_path / "home")


def assert_refused(
    line: Line, ended: subprocess.CompletedProcess[str], *told: str, found: str, expected: str, settled: bool = True
) -> None:
    """One message with every part, the parts that the test names in it, exit 2, and nothing half-written."""
    assert ended.returncode == 2, (ended.returncode, ended.stdout, ended.stderr)
    message = ended.stderr
    assert "Traceback" not in message
    assert message.count("error: ") == 1
    what, *parts = message[message.index("error: ") :].strip().splitlines()
    labels = [part.strip().partition(":")[0] for part in parts if re.match(r"  (found|expected|way out):", part)]
    assert labels == ["found", "expected", "way out"], message
    for piece in told:
        assert piece in what, (piece, what)
    said = {part.strip().partition(":")[0]: part for part in parts}
    assert found in said["found"]
    assert expected in said["expected"]
    assert line.leftovers() == []
    assert not list(line.folder.rglob("thriftune-crash-*"))
    if settled and (line.folder / ".thriftune" / "thriftune.db").exists():
        assert line.rows("SELECT count(*) FROM transfers WHERE state = 'pending'") == [(0,)]


def change(line: Line, before: str, after: str) -> None:
    path = line.folder / "thriftune.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


IN_THE_FILE = {
    "an unknown key": ("epochs: 40", "epoch: 40", ("line 10", "train.epoch", "unknown key"), "epoch: 40", "epochs"),
    "a wrong type": ("epochs: 40", "epochs: many", ("line 10", "train.epochs"), "many", "integer"),
    "a missing file": ("films.csv", "film.csv", ("line 4", "data[0].file", "no such data file"), "nothing", "a file"),
    "a budget of zero": ("total: 5.00", "total: 0", ("line 5", "budget.total"), "0", "greater than 0"),
    "a deadline in the past": ("20m", "2001-01-01", ("line 6", "deadline", "in the past"), "2001", "an instant after"),
    "an unknown machine": (
        "{price_per_hour: 3.6}",
        "{machine: teapot}",
        ("line 7", "compute.machine"),
        "teapot",
        "",
    ),
}


@pytest.mark.parametrize("case", IN_THE_FILE)
def test_a_project_file_that_cannot_be_is_refused_by_line_and_key(line, case):
    before, after, told, found, expected = IN_THE_FILE[case]
    change(line, before, after)
    ended = line.do("run")
    assert_refused(line, ended, "thriftune.yaml", *told, found=found, expected=expected)
    assert not (line.folder / ".thriftune").exists()


def rows(count: int = 200) -> list[bytes]:
    return [b"a %s film %d,%s" % ((b"good", i, b"pos") if i % 2 else (b"bad", i, b"neg")) for i in range(count)]


def csv(*lines: bytes) -> bytes:
    return b"text,label\n" + b"\n".join(lines) + b"\n"


IN_THE_DATA: dict[str, tuple[bytes, tuple[str, ...], str, str]] = {
    "no such column": (csv(*rows()).replace(b"label", b"mark", 1), ("films.csv", "'label'"), "text, mark", "'label'"),
    "no usable value": (csv(*(b"a film," for _ in range(50))), ("films.csv", "'label'"), "50 of 50 rows", "a value"),
    "one class": (csv(*(b"film %d,pos" % i for i in range(50))), ("one class",), "'pos' in all 50", "two different"),
    "invalid UTF-8": (csv(*rows(), *[b"\xff\xfe\x80 film,pos"] * 9), ("films.csv", "row 202"), "", ""),
    "a NUL byte": (csv(*rows(), *[b"a \0 film,pos"] * 9), ("films.csv", "row 202"), "", ""),
    "ragged rows": (csv(*rows(), *[b"one, two, three,pos"] * 9), ("films.csv", "row 202"), "4", "2"),
    "an empty file": (b"", ("films.csv",), "", ""),
    "a header alone": (b"text,label\n", ("films.csv",), "", "rows of data"),
}


@pytest.mark.parametrize("case", IN_THE_DATA)
def test_data_that_cannot_be_used_is_refused_by_file_and_row(line, case):
    content, told, found, expected = IN_THE_DATA[case]
    (line.folder / "films.csv").write_bytes(content)
    assert_refused(line, line.do("run"), *told, found=found, expected=expected)
    assert not list((line.folder / ".thriftune").glob("artifacts/*/*"))


def test_a_row_of_ten_megabytes_is_dropped_counted_and_told(line):
    (line.folder / "films.csv").write_bytes(csv(*rows(40), b"good " * 2_000_000 + b",pos"))
    process = line.start("run")
    assert process.stdout
    said = next((said for said in process.stdout if said.startswith("overlong:")), "")
    process.kill()
    process.communicate()
    assert "40 rows kept, dropped: 1" in said


def test_a_directory_in_the_place_of_the_data_is_refused(line):
    (line.folder / "films.csv").unlink()
    (line.folder / "films.csv").mkdir()
    told = ("thriftune.yaml", "line 4", "data[0].file")
    assert_refused(line, line.do("run"), *told, found="a directory", expected="a file")


def test_a_model_folder_with_a_missing_shard_is_refused(line):
    model = line.folder / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    (model / "model.safetensors.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors",'
        ' "b": "model-00002-of-00002.safetensors"}}'
    )
    ended = line.do("run")
    assert_refused(line, ended, "model-00002-of-00002.safetensors", "missing", found="no such file", expected="2 files")
    assert line.events("data.entry") == []  # before anything is paid for


def may_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own that holds a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        may_mount()
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("mounting a small disk is not allowed here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_told(line, small_disk):
    state = line.folder / ".thriftune"
    state.symlink_to(small_disk, target_is_directory=True)
    ended = line.do("run")
    # What was reserved when the disk got full is settled by the next run: tests/faults/test_surroundings.py.
    assert_refused(line, ended, "the disk is full", found="no room left", expected="room", settled=False)
    assert not list(small_disk.rglob("*.tmp"))


def test_a_limit_on_the_size_of_files_is_told_like_a_full_disk(line):
    command = [sys.executable, "-c", "from thriftune.cli.main import main; main()", "run"]
    ended = subprocess.run(
        command,
        cwd=line.folder,
        env=line.environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error: ") == 1


@pytest.fixture
def not_ours(line) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Does a command as a user to whom the project's folder does not belong; root heeds no modes."""
    if os.geteuid() != 0:
        line.folder.chmod(0o555)
        return line.do
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there to give up root's rights with")
    for folder in (line.folder, *line.folder.parents):
        if folder.stat().st_mode & 0o055 != 0o055 and folder.is_relative_to(Path(line.folder.anchor) / "tmp"):
            folder.chmod(0o755)

    def do(*arguments: str) -> subprocess.CompletedProcess[str]:
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = [*as_nobody, sys.executable, "-c", "from thriftune.cli.main import main; main()", *arguments]
        return subprocess.run(
            command, cwd=line.folder, env=line.environment(), capture_output=True, text=True, check=False
        )

    return do


def test_a_folder_that_cannot_be_written_is_refused(line, not_ours):
    line.home.mkdir(exist_ok=True)
    line.home.chmod(0o777)
    ended = not_ours("run")
    assert_refused(line, ended, str(line.folder), found="ermi", expected="")
    assert not (line.folder / ".thriftune").exists()


DEFECT = """
import thriftune.pipeline
from thriftune.cli.main import main

def broken(*_, **__):
    raise ZeroDivisionError("a defect")

thriftune.pipeline.run = broken
main()
"""


def test_a_defect_of_ours_exits_1_and_leaves_a_crash_file(line):
    ended = subprocess.run(
        [sys.executable, "-c", DEFECT, "run"],
        cwd=line.folder,
        env=line.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "a defect of ours: ZeroDivisionError: a defect" in ended.stderr
    assert "Traceback" not in ended.stderr
    (crash,) = line.folder.rglob("thriftune-crash-*.txt")
    assert str(crash) in ended.stderr
    assert 'raise ZeroDivisionError("a defect")' in crash.read_text() or "ZeroDivisionError" in crash.read_text()
