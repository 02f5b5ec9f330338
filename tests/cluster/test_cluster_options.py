"""What the project file may say of a cluster, and what a search on its nodes may take."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest

from thriftune import search_line
from thriftune.cluster.connection import connected
from thriftune.cluster.options import ClusterOptions
from thriftune.errors import BadInput, MissingExtra
from thriftune.project import Project
from thriftune.search.options import Nodes, SearchOptions, allowance

TEXT = """name: films
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label}}
budget: {{total: 5.00}}
deadline: 1h
compute: {{cluster: {{address: "{address}", price_per_hour: 0.40, idle: 5m}}}}
{search}
"""


def project(folder: Path, address: str = "10.0.0.1:6379", search: str = "search: {workers: 4}") -> Project:
    (folder / "films.csv").write_text("text,label\na good film,pos\na bad film,neg\n")
    (folder / "thriftune.yaml").write_text(TEXT.format(address=address, search=search))
    return Project.load(folder / "thriftune.yaml")


def test_a_cluster_without_a_search_and_an_address_without_a_port_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"search for compute\.cluster"):
        project(tmp_path, search="")
    with pytest.raises(BadInput, match=r"cluster\.address"):
        project(tmp_path, address="somewhere")


def test_nodes_elsewhere_need_a_database_that_they_can_reach(tmp_path, monkeypatch):
    monkeypatch.delenv("THRIFTUNE_DATABASE_URL", raising=False)
    search_line.check(project(tmp_path, address="local"), alone=True)
    elsewhere = project(tmp_path)
    with pytest.raises(BadInput, match="in reach"):
        search_line.check(elsewhere, alone=True)
    monkeypatch.setenv("THRIFTUNE_DATABASE_URL", "postgresql://there/films")
    search_line.check(elsewhere, alone=True)


def test_the_search_s_share_of_the_money_pays_for_this_machine_and_all_nodes_until_they_have_gone():
    options = SearchOptions(share=0.5, runs=1e4, workers=4)
    cluster = ClusterOptions(price_per_hour=Decimal(2), idle=90.0)
    nodes = Nodes(cluster, money=Decimal(10), price_per_hour=Decimal(1))
    seconds = allowance(options, room=36_000.0, full=100.0, nodes=nodes)
    cost = nodes.cost(options, seconds) + Decimal(1) * Decimal(seconds) / 3600
    assert cost == pytest.approx(Decimal(5))
    assert allowance(options, room=600.0, full=100.0, nodes=nodes) == 300.0  # the deadline binds first
    assert allowance(options, room=600.0, full=100.0, nodes=Nodes(cluster, Decimal("0.01"), Decimal(1))) == 0.0
    free = Nodes(ClusterOptions(price_per_hour=Decimal(0)), Decimal(10), Decimal(0))
    assert allowance(options, room=600.0, full=100.0, nodes=free) == 300.0


def test_without_ray_or_a_cluster_the_way_out_is_named(monkeypatch):
    with pytest.raises(BadInput, match="no Ray cluster"), connected("127.0.0.1:1"):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"thriftune\[ray\]"), connected("127.0.0.1:1"):
        pass
