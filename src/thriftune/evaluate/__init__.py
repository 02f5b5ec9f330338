"""Evaluation: how good each predictor is on held-out rows, who is better, and whether to ship."""
