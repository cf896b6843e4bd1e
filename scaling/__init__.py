"""Trains one cell of a study: data, models, one loop, checkpoints, evaluations."""

__version__ = '0.1.0'
