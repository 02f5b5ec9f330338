"""Prices, ledger, leases: what things cost, and who may spend."""
