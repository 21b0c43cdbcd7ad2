"""What a lake's manifests say. Each adds one step to the one before; none is ever changed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.views.batches import StoredFile
from headwater.views.storage import Checkpoint, LastEvent, Place

WHOLE_EVERY = 100
"""Every so many manifests one lists all files, so that a reader goes back no further."""


class Retired(msgspec.Struct, frozen=True):
    """A file that a larger one has replaced, and when, in seconds since 1970."""

    path: str
    at: int


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: the checkpoint after it, the files that it added and those that it retired.

    Some are whole: they name all files, and of the retired ones those that may still be read.
    """

    number: int
    position: int
    epoch: int
    fence: int
    last_position: int | None = None
    last_id: str | None = None
    files: tuple[StoredFile, ...] = ()
    whole: bool = False
    retired: tuple[Retired, ...] = ()

    @property
    def checkpoint(self) -> Checkpoint:
        """How far the data is."""
        last = None
        if self.last_position is not None and self.last_id is not None:
            last = LastEvent(self.last_position, bytes.fromhex(self.last_id))
        return Checkpoint(self.position, self.epoch, 0, last)


class Listing(msgspec.Struct):
    """What a chain of manifests says: the files of the newest, and those retired on the way."""

    files: list[StoredFile]
    retired: dict[str, int]


def listing(chain: Sequence[Manifest]) -> Listing:
    """What manifests say, the oldest first, from a whole one or the first on."""
    files: dict[str, StoredFile] = {}
    retired: dict[str, int] = {}
    for manifest in chain:
        if manifest.whole:
            files, retired = {}, {}
        for old in manifest.retired:
            files.pop(old.path, None)
            retired[old.path] = old.at
        files |= {file.path: file for file in manifest.files}
    return Listing(sorted(files.values(), key=lambda file: (file.after, file.upto)), retired)


class Latest(msgspec.Struct, frozen=True):
    """The pointer: a manifest that was the newest a moment ago."""

    number: int
    position: int


class Published(msgspec.Struct, frozen=True):
    """The generation that is read."""

    generation: int


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


def published_path(place: Place) -> str:
    """The object that says which generation is read."""
    return f"{place.log}/{place.view}/published.json"
