"""States that this process's own decisions led to, so that the next one on the same streams reads nothing.

What is remembered may be old: another process may have appended since. So it is believed only where an append
proves it, by the versions that it expects; what else it leads to is decided again on what is read.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from headwater.commands.decider import Evolving, evolved
from headwater.commands.looking import Place, Seen, Sights
from headwater.commands.snapshots import SPACING, Snapshot, Snapshots, as_json
from headwater.events import Event, EventType
from headwater.events.event import encode
from headwater.log import Written
from headwater.log.tokens import LogIdentity

_log = logging.getLogger("headwater.commands")
_MOST_BYTES = 64 * 2**20
_EACH_BYTES = 500
"""What an entry costs beside its state."""

_Of = tuple[LogIdentity, str, str, str]
"""Whose: a log and its epoch, a tenant, a stream, and a fold's fingerprint."""


@dataclass(frozen=True, slots=True)
class _State:
    """A fold's state as JSON, so that no function can change it, with its version and position."""

    data: bytes
    version: int
    position: int
    kept: int
    """The version of the newest snapshot that this process knows of."""


class Remembered:
    """The states used last, up to a number of bytes."""

    def __init__(self, snapshots: Snapshots, most_bytes: int = _MOST_BYTES) -> None:
        self._snapshots = snapshots
        self._most_bytes = most_bytes
        self._bytes = 0
        self._states: OrderedDict[_Of, _State] = OrderedDict()

    def seen(self, log: LogIdentity, sights: Sights) -> Seen | None:
        """What a decision looks at, where all of it is remembered."""
        seen = Seen()
        for fold, place in sights:
            of = _of(log, sights, fold, place)
            if place.by != "stream" or (found := self._states.get(of)) is None:
                return None
            self._states.move_to_end(of)
            seen.states.append(msgspec.json.decode(found.data, type=fold.state | None))
            seen.kept.append(found.kept)
            seen.data.append(found.data)
            seen.versions[place] = found.version
            seen.position = max(seen.position, found.position)
        return seen

    def mistaken(self, log: LogIdentity, sights: Sights) -> None:
        """Forgets what a decision looked at: others have appended since."""
        for fold, place in sights:
            self._forget(_of(log, sights, fold, place))

    def learn(
        self,
        log: LogIdentity,
        sights: Sights,
        seen: Seen,
        events: Sequence[Event],
        written: Written,
    ) -> None:
        """Remembers what the streams are once events were appended to what was seen of them."""
        places = [EventType.of(type(event)).stream_of(event) for event in events]
        for (fold, place), before, kept in zip(sights, seen.data, seen.kept, strict=True):
            own = [at for at, name in enumerate(places) if name == place.name]
            of = _of(log, sights, fold, place)
            data = _after(fold, before, [events[at] for at in own])
            if data is None:
                self._forget(of)
                continue
            version, position = written.versions[own[-1]], written.positions[own[-1]]
            newest = kept
            if version - kept >= SPACING:
                newest = version
                self._snapshots.keep(Snapshot(*of[1:], version, position, data))
            self._add(of, _State(data, version, position, newest))

    def _forget(self, of: _Of) -> None:
        if (gone := self._states.pop(of, None)) is not None:
            self._bytes -= len(gone.data) + _EACH_BYTES

    def _add(self, of: _Of, state: _State) -> None:
        if (known := self._states.get(of)) is not None and known.version > state.version:
            return
        self._forget(of)
        self._states[of] = state
        self._bytes += len(state.data) + _EACH_BYTES
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._states)))


def _of(log: LogIdentity, sights: Sights, fold: Evolving, place: Place) -> _Of:
    return log, sights.tenant, place.name, fold.fingerprint


def _after(fold: Evolving, before: bytes | None, events: Sequence[Event]) -> bytes | None:
    """A state after events, each as it is read: through its JSON; None where that cannot be told."""
    if before is None or fold.takes_recorded or not events:
        return None
    try:
        state = msgspec.json.decode(before, type=fold.state | None)
        for event in events:
            declared = fold.types.get(EventType.of(type(event)).name)
            if declared is not None:
                state = evolved(fold, state, declared.decode(encode(event)))
    except Exception as error:  # noqa: BLE001 - the user's function; what it led to is appended
        _log.debug("a state of %s is not remembered: %s", fold.name, error)
        return None
    return as_json(state)
