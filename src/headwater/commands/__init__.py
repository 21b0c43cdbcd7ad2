"""Deciding: a command, the state that it looks at, and the facts or the rejection that follow."""

from headwater.commands.command import Accepted, Command, Rejection
from headwater.commands.decider import Decider, Over, over
from headwater.commands.deciding import Deciding

__all__ = ["Accepted", "Command", "Decider", "Deciding", "Over", "Rejection", "over"]
