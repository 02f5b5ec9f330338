"""The database: SQLite on one machine, PostgreSQL for several."""

from thriftune.store.database import Store, Transaction, open_store

__all__ = ["Store", "Transaction", "open_store"]
