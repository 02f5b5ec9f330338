"""One readable training loop, governed by money and time."""
