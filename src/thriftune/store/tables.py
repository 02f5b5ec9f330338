"""The tables. Money is an integer of nano-units, an instant that is metered an integer of nanoseconds since 1970.

Several projects may share a database, so each table names its project. A change here needs a migration beside it
(`migrations/versions`) and its name in `SCHEMA`; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

SCHEMA = "0004"
VERSION_TABLE = "thriftune_schema"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

projects = Table(
    "projects",
    metadata,
    Column("project", String(200), primary_key=True),
    Column("last_seq", BigInteger, nullable=False),  # number of the newest event: taken under this row's lock
)

attempts = Table(
    "attempts",
    metadata,
    Column("project", String(200), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("outcome", String(20)),  # done, refused, interrupted or failed; empty while it runs
    Column("exit_code", Integer),
    Column("message", Text),
    PrimaryKeyConstraint("project", "attempt"),
)

events = Table(
    "events",
    metadata,
    Column("project", String(200), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(60), nullable=False),
    Column("data", Text, nullable=False),  # JSON
    PrimaryKeyConstraint("project", "seq"),
    Index("ix_events_attempt", "project", "attempt", "kind"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("project", String(200), nullable=False),
    Column("stage", String(60), nullable=False),
    Column("key", String(64), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("recipe", Text, nullable=False),  # JSON
    Column("recorded_at", Float, nullable=False),
    PrimaryKeyConstraint("project", "stage", "key"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("project", String(200), primary_key=True),
    Column("currency", String(10), nullable=False),
    Column("total_nano", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    Column("declared", Text, nullable=False),  # JSON: what the project file said when it was last read
    Column("deadline_at", Float),
    Column("deadline_declared", Text),
    Column("first_run_at", Float),
)

phases = Table(
    "phases",
    metadata,
    Column("project", String(200), nullable=False),
    Column("phase", String(60), nullable=False),
    Column("place", Integer, nullable=False),  # in the order of the line
    Column("allowance_nano", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("reserved_nano", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "phase"),
    ForeignKeyConstraint(["project"], ["budgets.project"]),
)

transfers = Table(
    "transfers",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project", String(200), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("phase", String(60), nullable=False),
    Column("category", String(60), nullable=False),
    Column("unit", Text, nullable=False),
    Column("state", String(10), nullable=False),  # pending, then posted or voided
    Column("reserved_nano", BigInteger, nullable=False),
    Column("posted_nano", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("machine", String(200)),  # of the lease under which it was reserved
    Column("fence", BigInteger),
    Column("reserved_at_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger),  # the reserved unit should have ended by then
    Column("settled_at_ns", BigInteger),
    Index("ix_transfers_state", "project", "state"),
    sqlite_autoincrement=True,
)

leases = Table(
    "leases",
    metadata,
    Column("machine", String(200), primary_key=True),
    Column("project", String(200), nullable=False),  # of the owner, for the charges it may leave open
    Column("attempt", Integer, nullable=False),
    Column("owner_pid", Integer, nullable=False),
    Column("owner_started", String(60), nullable=False),
    Column("owner_place", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("heartbeat_ns", BigInteger, nullable=False),
    Column("metered_until_ns", BigInteger, nullable=False),
    Column("price_nano_per_hour", BigInteger, nullable=False),
    Column("remainder", BigInteger, nullable=False),  # of a nano-unit, in nano-units x nanoseconds per hour
)

queue = Table(
    "queue",
    metadata,
    Column("owner_pid", Integer, nullable=False),
    Column("owner_started", String(60), nullable=False),
    Column("owner_place", String(200), nullable=False),
    Column("machine", String(200), nullable=False),
    Column("cluster", String(200)),
    Column("project", String(200), nullable=False),
    Column("folder", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("deadline_at", Float),
    Column("needs_s", Float, nullable=False),
    Column("needs_at", Float, nullable=False),
    Column("joined_at", Float, nullable=False),
    Column("waited_s", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("working", Boolean, nullable=False),
    Column("sign_at", Float, nullable=False),
    PrimaryKeyConstraint("owner_pid", "owner_started", "owner_place"),
    Index("ix_queue_machine", "machine"),
    Index("ix_queue_cluster", "cluster"),
)

bill_lines = Table(
    "bill_lines",
    metadata,
    Column("project", String(200), nullable=False),
    Column("line_key", String(40), nullable=False),
    Column("billed", Text, nullable=False),  # decimal text: bills have more places than the ledger's unit
    Column("began", Float, nullable=False),  # of the charge period
    Column("ended", Float, nullable=False),
    Column("currency", String(10), nullable=False),
    Column("category", String(20), nullable=False),  # the specification's ChargeCategory
    Column("service", Text, nullable=False),
    Column("resource", Text, nullable=False),
    PrimaryKeyConstraint("project", "line_key"),
)
