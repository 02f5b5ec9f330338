"""The cluster's part of the project file."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from thriftune.options import Amount, Options, Seconds

LOCAL = "local"


class ClusterOptions(Options):
    """A Ray cluster whose autoscaler brings a node for each of a search's workers and takes it away after."""

    address: str = Field(
        default=LOCAL,
        pattern=r"^(local|[^\s:/]+:\d+)$",
        description="A cluster for this run, each node a process of this machine; host:port of the head of another",
    )
    price_per_hour: Amount = Field(
        le=1_000_000,
        description="Of a node; 0 for the nodes of a local cluster, whose machine is paid for already",
    )
    cores: int = Field(default=1, ge=1, le=1024, description="Processor cores for each worker")
    idle: Seconds = Field(
        default=60.0,
        description="How long a node stays that has nothing to do, by the cluster's own configuration; it is paid for",
    )

    def seconds_cost(self, nodes: int, seconds: float) -> Decimal:
        """What so many nodes cost for so long."""
        return self.price_per_hour * nodes * Decimal(seconds) / 3600
