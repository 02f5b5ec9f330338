"""Metrics, their intervals, and the comparison of two predictors on the same rows."""
