"""Tails the log in order and hands batches to views."""

from headwater.relay.port import Batch, CannotApply, OnFailure, Target
from headwater.relay.runner import Pace, Progress
from headwater.relay.service import Relay

__all__ = ["Batch", "CannotApply", "OnFailure", "Pace", "Progress", "Relay", "Target"]
