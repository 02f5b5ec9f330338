"""Hyperparameters by cross-validation, under one cap in money and time."""
