"""Alembic's entry: it migrates the connection that `upgrade` hands over, in the transaction that is open there."""

from alembic import context

from thriftune.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
