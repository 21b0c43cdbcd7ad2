"""Queries with 'at least position'."""

from headwater.readers.checkpoints import CheckpointWatch

__all__ = ["CheckpointWatch"]
