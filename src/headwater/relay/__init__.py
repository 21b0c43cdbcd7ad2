"""Tails the log in order and hands batches to views."""

from headwater.relay.frontier import Frontier
from headwater.relay.leases import Leases, Standing
from headwater.relay.port import Batch, CannotApply, OnFailure, Target
from headwater.relay.runner import Pace, Progress, Runner
from headwater.relay.service import Relay

__all__ = [
    "Batch",
    "CannotApply",
    "Frontier",
    "Leases",
    "OnFailure",
    "Pace",
    "Progress",
    "Relay",
    "Runner",
    "Standing",
    "Target",
]
