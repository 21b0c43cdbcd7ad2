"""Tokens: what a write returns and a read waits for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headwater.errors import ForeignToken, InvalidToken, StaleToken

_TOKEN = re.compile(r"([0-9a-f]{8})\.([0-9]{1,9})\.([0-9]{1,16})")


class Token(str):
    """A place in one log's history. Opaque: hand it on as it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log this is, and which epoch of it: both change what a token means."""

    log_id: str
    epoch: int

    def token(self, position: int) -> Token:
        """The token of a position."""
        return Token(f"{self.log_id}.{self.epoch}.{position}")

    def position_of(self, token: str) -> int:
        """The position a token stands for in this log.

        Raises InvalidToken, ForeignToken or StaleToken.
        """
        of, position = parts_of(token)
        if of.log_id != self.log_id:
            raise ForeignToken(
                hint="Use it with the service whose write returned it, or one that receives from it."
            )
        if of.epoch != self.epoch:
            raise StaleToken(
                hint="The write it stands for may not have survived: read without a token and check."
            )
        return position


def parts_of(token: str) -> tuple[LogIdentity, int]:
    """The log, its epoch, and the position in it. Raises InvalidToken."""
    if (match := _TOKEN.fullmatch(token)) is None:
        raise InvalidToken(hint="Pass the token exactly as the write returned it.")
    log_id, epoch, position = match.groups()
    return LogIdentity(log_id, int(epoch)), int(position)
