"""A search on a cluster's nodes: it grows for it and shrinks after, and a node that is lost costs a look, no more.

Where the head is lost, all is: the run ends with a word on it, and the next goes on from there.
"""

from decimal import Decimal

import pytest

from clusters_for_tests import cluster_of, lose, lose_head, processes_in
from line_for_tests import CLASSIFY, charged, classifier
from models_for_tests import bert_folder
from thriftune.errors import EXIT_BAD_INPUT

ON_NODES = CLASSIFY.replace(", learning_rate: 0.003", "").replace(
    "compute: {{price_per_hour: 3.6}}",
    "compute: {{price_per_hour: 3.6, cluster: {{address: local, price_per_hour: 7.2, idle: 3s}}}}",
) + (
    "search: {{space: {{learning_rate: [0.0000001, 0.003]}}, folds: 2, share: 0.6, runs: 500, "
    "workers: 2, least_gain: 0}}\n"
)


@pytest.mark.slow
def test_nodes_that_are_lost_in_the_middle_of_trials_cost_a_look_each_and_every_node_second_is_charged_once(tmp_path):
    line = classifier(tmp_path / "project", bert_folder(tmp_path / "bert"), tmp_path / "home", ON_NODES, epochs=20)
    process = line.start("run")
    line.wait_until(lambda: len(line.events("node.started")) == 2 == len(line.events("search.worker")))
    line.wait_for("trial.training.step")
    lost = {each["node"] for each in line.events("node.started")}
    session = cluster_of(process.pid)
    lose(session, lost)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "raylet" not in out + err

    # What was looked at, was once; what was lost, was made again.
    looks = [(look["configuration"], look["fold"], look["rung"]) for look in line.events("search.look")]
    assert len(set(looks)) == len(looks) >= 4
    assert {each["node"] for each in line.events("node.lost")} == lost
    again = [(each["configuration"], each["fold"], each["rung"]) for each in line.events("search.worker_lost")]
    assert len(again) in (1, 2) and set(again) <= set(looks)  # one that had just answered had no look to lose
    (found,) = line.events("search.finished")
    assert found["values"]["learning_rate"] == 0.003

    # Each node's time is charged once, from when it was there to when it was gone.
    started = {each["node"]: each["at"] for each in line.events("node.started")}
    ended = {each["node"]: each["ended_at"] for kind in ("node.ended", "node.lost") for each in line.events(kind)}
    assert ended.keys() == started.keys() > lost
    charges = line.events("charge")
    for node, at in started.items():
        seconds = sum(charge["seconds"] for charge in charges if charge["unit"] == f"node {node}")
        assert seconds == pytest.approx(ended[node] - at, abs=1e-5)
    amounts = [Decimal(charge["amount"]) for charge in charges if charge["unit"].startswith("node ")]
    seconds = sum(charge["seconds"] for charge in charges if charge["unit"].startswith("node "))
    assert float(sum(amounts)) == pytest.approx(seconds * 0.002, abs=1e-6)
    assert Decimal(line.json("report")["cost"]["spent"]) == charged(line) <= Decimal("5.00")
    assert not line.rows("SELECT unit FROM transfers WHERE state = 'pending'")
    assert not processes_in(session)


@pytest.mark.slow
def test_a_run_whose_clusters_head_is_lost_says_so_and_the_same_command_goes_on_with_another(tmp_path):
    line = classifier(tmp_path / "project", bert_folder(tmp_path / "bert"), tmp_path / "home", ON_NODES, epochs=20)
    process = line.start("run")
    line.wait_for("search.look")
    lose_head(cluster_of(process.pid))
    out, err = process.communicate(timeout=240)
    assert process.returncode == EXIT_BAD_INPUT, (out, err)
    assert "the head of the Ray cluster is gone" in err and "Traceback" not in out + err
    seen = len(line.events("search.look"))
    again = line.do("run")
    assert again.returncode == 0, again.stderr
    looks = [(look["configuration"], look["fold"], look["rung"]) for look in line.events("search.look")]
    assert len(set(looks)) == len(looks) > seen
    assert Decimal(line.json("report")["cost"]["spent"]) == charged(line) <= Decimal("5.00")
    assert not line.rows("SELECT unit FROM transfers WHERE state = 'pending'")
