"""Receiving: what other services publish, appended to this log."""

from headwater.receiving.inbox import Inbox

__all__ = ["Inbox"]
