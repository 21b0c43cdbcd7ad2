"""Compares a fold's stored documents with the fold of the log, in slices of keys that fit in memory.

Where the store goes on while it is read, documents may be newer than the checkpoint at which reading
began. A key that differs is therefore read again, together with the checkpoint of that moment, and its
expected document is folded up to there; what differs then is a difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from headwater.log.database import Connection
from headwater.views.definition import Difference, Sample, Verification
from headwater.views.documents import DocumentsReading
from headwater.views.driving.record import SQL, Aside, ViewRecord
from headwater.views.driving.work import Folding, Row, encode, plain
from headwater.views.fold import Document, FoldEvent, Key, Slice, evolve_all
from headwater.views.indexes import Seen
from headwater.views.port import Report

D = TypeVar("D", bound=Document)

_VERIFIED_AT_ONCE = 500_000
_READ_AT_ONCE = 50_000
_SAMPLED_AT_ONCE = 2_000
_AGAIN_AT_ONCE = 1_000


@dataclass(slots=True)
class FoldCheck(Generic[D]):
    """One verification of one fold, over a snapshot of the log."""

    folding: Folding[D]
    record: ViewRecord
    connection: Connection
    reading: DocumentsReading
    parked: set[Key] = field(default_factory=set)
    keyless: set[int] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)

    def _leave_out(self, aside: Iterable[Aside]) -> None:
        """Keys that are parked and events that were given up do not count."""
        for position, tenant, keys, status in aside:
            if status == "parked":
                self.parked.update((tenant, key) for key in keys or ())
                if not keys:
                    self.keyless.add(position)
            else:
                self.given_up.add(position)

    async def run(
        self, report: Report | None, limit: int, sample: Sample | None = None
    ) -> Verification:
        """The outcome, of all keys or of a sample. Indexes are compared whole, or not at all."""
        self._leave_out(await self.record.not_applied(self.connection))
        rows = await self.reading.count()
        upto = self.reading.position
        sampled, wanted = (1, 0) if sample is None else (sample.slices, sample.number)
        slices = sampled * (rows // sampled // _VERIFIED_AT_ONCE + 1)
        numbers = range(wanted, slices, sampled)  # those that are in the sample's own slice
        compared = 0
        # A sample is taken beside views that are driven: what is read at once holds them up.
        is_sparing = sample is not None and not sample.of_whole
        at_once = _SAMPLED_AT_ONCE if is_sparing else _READ_AT_ONCE
        differences: list[Difference] = []
        for done, number in enumerate(numbers):
            expected: dict[Key, D | None] = {}
            seen = Seen.of(self.folding.fold.indexes)
            after = 0
            while (first := await self._first_after(after, upto)) is not None:
                end = min(upto, first + at_once - 1)
                read = await read_log(self.connection, self.folding, after, end)
                events = await asyncio.to_thread(self._wanted, read, Slice(number, slices))
                events, _ = await self.folding.opening.events(events)
                await asyncio.to_thread(self._expect, expected, events, seen)
                after = end
                if report is not None:
                    report(done * (upto - first) + end - first, len(numbers) * (upto - first))
            differing = await self._compare(expected, Slice(number, slices))
            differences += await self._again(differing)
            differences += await self._counted(expected, seen)
            compared += sum(document is not None for document in expected.values())
        if not is_sparing and wanted == 0:
            differences += await self._strays()
        return Verification(
            self.folding.fold.name,
            upto,
            rows if sample is None else compared,
            len(differences),
            tuple(differences[:limit]),
            len(self.parked) + len(self.keyless),
        )

    # What is kept beside the documents; see IndexedFoldCheck ---------------------------------------

    async def _counted(self, expected: dict[Key, D | None], seen: Seen) -> list[Difference]:  # noqa: ARG002
        """Distinct counts that differ from the values that the log gives."""
        return []

    async def _strays(self) -> list[Difference]:
        """Where an index differs from the documents beside it."""
        return []

    async def _first_after(self, after: int, upto: int) -> int | None:
        cursor = await self.connection.execute(
            SQL["record.first_after"], {"after": after, "upto": upto}
        )
        row = await cursor.fetchone()
        return None if row is None else row[0]

    def _wanted(self, rows: Iterable[Row], part: Slice) -> Sequence[FoldEvent]:
        """The events of a slice of keys that count."""
        folding = self.folding
        return [
            item
            for row in rows
            if row[0] not in self.given_up
            and (key := folding.key_of(row)) not in self.parked
            and key is not None
            and part.holds(key)
            and (item := folding.decode(row)) is not None
        ]

    def _expect(
        self, expected: dict[Key, D | None], events: Sequence[FoldEvent], seen: Seen
    ) -> None:
        for key in evolve_all(self.folding.fold, expected, events):
            seen.note(key, expected[key])

    async def _compare(
        self, expected: dict[Key, D | None], part: Slice
    ) -> dict[Key, tuple[D | None, bytes | None]]:
        """The keys that differ: what was expected, what is stored."""
        differing: dict[Key, tuple[D | None, bytes | None]] = {}
        seen: set[Key] = set()
        async for key, stored in self.reading.documents():
            if key in self.parked or not part.holds(key):
                continue
            seen.add(key)
            if not same(expected.get(key), stored):
                differing[key] = expected.get(key), stored
        for key, document in expected.items():
            if document is not None and key not in seen:
                differing[key] = document, None
        return differing

    async def _again(self, differing: dict[Key, tuple[D | None, bytes | None]]) -> list[Difference]:
        keys = list(differing)
        differences = []
        for start in range(0, len(keys), _AGAIN_AT_ONCE):
            some = keys[start : start + _AGAIN_AT_ONCE]
            position, stored = await self.reading.at_once(some)
            expected = {key: differing[key][0] for key in some}
            if position > self.reading.position:
                await self._go_on(expected, position)
            differences += [
                Difference(
                    *key,
                    plain(document),
                    msgspec.json.decode(stored[key]) if key in stored else None,
                )
                for key, document in expected.items()
                if key not in self.parked and not same(document, stored.get(key))
            ]
        return differences

    async def _go_on(
        self, expected: dict[Key, D | None], upto: int, seen: Seen | None = None
    ) -> None:
        """Folds on for some keys, up to a later checkpoint. Only where the store outran the snapshot."""
        async with self.record.database.connection() as connection:
            self._leave_out(await self.record.not_applied(connection))
            rows = await read_log(connection, self.folding, self.reading.position, upto)
        events = [
            item
            for row in rows
            if row[0] not in self.given_up
            and (key := self.folding.key_of(row)) in expected
            and key not in self.parked
            and (item := self.folding.decode(row)) is not None
        ]
        opened, _ = await self.folding.opening.events(events)
        for key in evolve_all(self.folding.fold, expected, opened):
            if seen is not None:
                seen.note(key, expected[key])


def same(expected: Document | None, stored: bytes | str | None) -> bool:
    """Whether a document and what is stored are equal as JSON."""
    if expected is None or stored is None:
        return expected is None and stored is None
    decoded: Any = msgspec.json.decode(stored)
    return bool(decoded == msgspec.json.decode(encode(expected)))


async def read_log(
    connection: Connection,
    folding: Folding[Any],
    after: int,
    upto: int,
    *,
    identified: bool = False,
) -> Sequence[Row]:
    """The rows of a range that a fold reads."""
    fold, picked = folding.fold, folding.read_slice
    statement = "identified_events" if identified else "events"
    if fold.takes_recorded:
        statement = "recorded_events"
    cursor = await connection.execute(
        SQL[f"log.{statement}"],
        {
            "after": after, "upto": upto, "types": fold.type_names,
            "slices": picked.of, "slice": picked.number, "slice_key": fold.key,
        },
        binary=True,
        prepare=True,
    )  # fmt: skip
    return await cursor.fetchall()
