"""Alembic's migrations, run to the newest when a store is opened."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from thriftune.store.tables import VERSION_TABLE


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest version inside the connection's open transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, "head")
