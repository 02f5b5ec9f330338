"""Fine-tune language models to a budget and a deadline."""

__version__ = "0.1.0"
