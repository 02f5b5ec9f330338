"""A database that an earlier Thriftune made is brought to the newest schema, with all that it holds."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from thriftune.store import migrations, open_store, tables
from thriftune.store.database import schema_version


def test_a_database_of_the_first_schema_keeps_what_it_holds(store_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(store_url)
    with engine.begin() as connection:
        config.attributes |= {"connection": connection, "version_table": tables.VERSION_TABLE}
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO projects (project, last_seq) VALUES ('films', 7)"))
    engine.dispose()
    store = open_store(store_url)
    try:
        assert schema_version(store) == tables.SCHEMA
        with store.read() as connection:
            assert connection.execute(text("SELECT last_seq FROM projects")).scalar_one() == 7
            assert connection.execute(text("SELECT count(*) FROM bill_lines")).scalar_one() == 0
    finally:
        store.close()
