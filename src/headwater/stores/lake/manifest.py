"""What a lake's manifests say. Each adds one step to the one before; none is ever changed."""

from __future__ import annotations

import msgspec

from headwater.views.store import Checkpoint, LastEvent, Place, StoredFile

WHOLE_EVERY = 100
"""Every so many manifests one lists all files, so that a reader goes back no further."""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: the checkpoint after it, and the files that it added or, in some, all files."""

    number: int
    position: int
    epoch: int
    fence: int
    last_position: int | None = None
    last_id: str | None = None
    files: tuple[StoredFile, ...] = ()
    whole: bool = False

    @property
    def checkpoint(self) -> Checkpoint:
        """How far the data is."""
        last = None
        if self.last_position is not None and self.last_id is not None:
            last = LastEvent(self.last_position, bytes.fromhex(self.last_id))
        return Checkpoint(self.position, self.epoch, 0, last)


class Latest(msgspec.Struct, frozen=True):
    """The pointer: a manifest that was the newest a moment ago."""

    number: int
    position: int


decode = msgspec.json.Decoder(Manifest).decode
decode_latest = msgspec.json.Decoder(Latest).decode
encode = msgspec.json.Encoder().encode


def root(place: Place) -> str:
    """The folder of one generation."""
    return f"{place.log}/{place.view}/{place.generation}"


def manifest_path(place: Place, number: int) -> str:
    """Where a manifest is."""
    return f"{root(place)}/manifests/{number:012}.json"


def latest_path(place: Place) -> str:
    """Where the pointer is."""
    return f"{root(place)}/latest.json"
