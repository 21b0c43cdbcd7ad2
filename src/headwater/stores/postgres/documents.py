"""Folds in Postgres: a table of documents, one row per tenant and key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from psycopg import sql

from headwater import errors
from headwater.events import Event
from headwater.log import arrays
from headwater.log.database import Connection, Database
from headwater.log.reading import recorded
from headwater.relay import Batch, CannotApply
from headwater.stores.postgres.sql_view_text import template
from headwater.stores.postgres.stored import SQL, PostgresView, snapshot
from headwater.views.definition import Difference, Verification
from headwater.views.fold import Document, Failed, Fold, FoldEvent, Key, evolve_all, slice_of
from headwater.views.port import Report

D = TypeVar("D", bound=Document)

_CACHED_DOCUMENTS = 250_000
_VERIFIED_AT_ONCE = 500_000
_READ_AT_ONCE = 50_000
_PRUNE_EVERY = 50

_encode = msgspec.json.Encoder(decimal_format="string").encode
_raw = msgspec.json.Decoder(dict)


@dataclass(slots=True)
class _Work:
    """A batch, taken apart: what to apply, what to set aside, and what came of it."""

    events: list[FoldEvent] = field(default_factory=list)
    culprits: list[tuple[int, Key | None, str, str]] = field(default_factory=list)
    followers: list[tuple[int, Key]] = field(default_factory=list)
    before: dict[Key, Any] = field(default_factory=dict)
    states: dict[Key, Any] = field(default_factory=dict)
    last: dict[Key, int] = field(default_factory=dict)

    def changed(self) -> tuple[list[Key], list[Key]]:
        """The keys whose documents are new or other than before, and those that have none now."""
        changed = [key for key, state in self.states.items() if state != self.before[key]]
        kept = [key for key in changed if self.states[key] is not None]
        return kept, [key for key in changed if self.states[key] is None]


class PostgresDocuments(PostgresView, Generic[D]):
    """A fold's documents. Changes are noted where SQL views over them are attached."""

    max_batch = 20_000

    def __init__(self, database: Database, fold: Fold[D]) -> None:
        super().__init__(database, fold.definition, fold.on_failure)
        self._fold = fold
        self._readers: list[PostgresView] = []
        self._decoder = msgspec.json.Decoder(fold.state)
        self._cache: dict[Key, D | None] = {}
        self._parked: set[Key] = set()
        self._parked_tenants: set[str] = set()
        self._batches = 0

    def attach(self, view: PostgresView) -> None:
        """Notes changes for a view over these documents. Before anything is deployed."""
        self._readers.append(view)

    async def _rebuild(self, connection: Connection) -> None:
        """A fold takes the views over its documents with it: they are sums of its changes."""
        await super()._rebuild(connection)
        for view in self._readers:
            await view._rebuild(connection)  # noqa: SLF001 - a view's own kind

    # Tables --------------------------------------------------------------------------------------

    @property
    def table(self) -> sql.Identifier:
        """The table of documents."""
        return self._identifier(f"__{self._generation}")

    @property
    def changes(self) -> sql.Identifier:
        """What each batch changed: (after_position, tenant, key, old, new)."""
        return self._identifier("__changes")

    def _sql(self, name: str, table: sql.Identifier | None = None) -> sql.Composed:
        return template(name, file="documents.sql").format(table=table or self.table)

    @property
    def _write_batch(self) -> sql.Composed:
        advance = template("advance", file="stored.sql")
        return template("write_batch", file="documents.sql").format(
            table=self.table, advance=advance
        )

    async def _create_tables(self, connection: Connection) -> None:
        await connection.execute(self._sql("create"))
        await self._secure(connection, self.table)
        await connection.execute(
            template("publish", file="documents.sql").format(
                view=self._identifier(), table=self.table
            )
        )
        for grant in ("grant_reading", "grant_keeping"):
            await connection.execute(
                template(grant, file="sql_view_tables.sql").format(relation=self._identifier())
            )
        await connection.execute(self._sql("create_changes", self.changes))
        await connection.execute(self._sql("index_changes", self.changes))
        await self._secure(connection, self.changes)

    async def _drop_tables(self, connection: Connection) -> None:
        drop = template("drop_view", file="sql_view_tables.sql")
        await connection.execute(drop.format(view=self._identifier()))
        for table in (self.changes, self.table):
            await connection.execute(
                template("drop_table", file="sql_view_tables.sql").format(table=table)
            )

    # Driving -------------------------------------------------------------------------------------

    async def _opened(self, connection: Connection) -> None:
        self._cache.clear()
        held = [row for row in await self._not_applied(connection) if row[3] == "parked"]
        self._parked = {(tenant, key) for _, tenant, keys, _ in held for key in keys or ()}
        self._parked_tenants = {tenant for _, tenant, keys, _ in held if keys is None}

    async def apply(self, batch: Batch) -> None:
        """Applies a batch of events; see Target."""
        assert self._connection is not None
        rows = await self._rows(self._connection, batch.after, batch.upto)
        work = self._take_apart(rows, batch)
        missing = [key for key in {item.key for item in work.events} if key not in self._cache]
        if missing:
            await self._load(self._connection, missing)
        # The user's function may be slow; in a thread it delays no other view.
        if work.events:
            await asyncio.to_thread(self._evolve, work)
        kept, removed = work.changed()
        if removed or work.culprits or work.followers or self._readers:
            async with self._batch(batch.after, batch.upto) as connection:
                await self._write(connection, work, batch.upto)
        elif kept:
            statement = self._write_batch
            await self._at_once(batch.after, batch.upto, statement, **_documents(work, kept))
        else:
            await self._at_once(batch.after, batch.upto)
        self._remember(work)

    async def _rows(self, connection: Connection, after: int, upto: int) -> list[tuple[Any, ...]]:
        statement = "recorded_events" if self._fold.takes_recorded else "events"
        cursor = await connection.execute(
            SQL[f"documents.{statement}"],
            {"after": after, "upto": upto, "types": self._fold.type_names},
            binary=True,
            prepare=True,
        )
        return await cursor.fetchall()

    def _take_apart(self, rows: Iterable[tuple[Any, ...]], batch: Batch) -> _Work:
        work = _Work()
        parked = set(self._parked)
        marked = {**batch.parked, **batch.skipped}
        for row in rows:
            position = row[0]
            if position in marked:
                key = self._key_of(row)
                status = "parked" if position in batch.parked else "skipped"
                work.culprits.append((position, key, marked[position], status))
                if status == "parked" and key is not None:
                    parked.add(key)
                continue
            item = self._decode(row)
            if item is None:
                continue
            if item.key in parked:
                work.followers.append((position, item.key))
            else:
                work.events.append(item)
        return work

    def _decode(self, row: tuple[Any, ...]) -> FoldEvent | None:
        """A row as the fold takes it, or None where the event concerns no document."""
        position, tenant, type_, schema_version, data = row[:5]
        declared = self._fold.types.named(type_)
        try:
            if not declared.reads(schema_version):
                raise CannotApply(
                    f"{type_} is version {schema_version}, not {declared.schema_version}", position
                )
            event: Event = declared.decode(data)
            whole = None
            if self._fold.takes_recorded:
                stream, version, id_, recorded_at, occurred_at, metadata, keys = row[5:]
                whole = recorded(
                    self._fold.types,
                    (position, tenant, stream, version, type_, schema_version, id_, recorded_at,
                     occurred_at, data, metadata, keys),
                )  # fmt: skip
        except (msgspec.ValidationError, errors.UnknownEventType) as error:
            raise CannotApply(str(error), position) from error
        value = getattr(event, self._fold.key)
        return None if value is None else FoldEvent(position, (tenant, str(value)), event, whole)

    def _key_of(self, row: tuple[Any, ...]) -> Key | None:
        """The key of an event that may not decode."""
        value = _raw.decode(row[4]).get(self._fold.key)
        return None if value is None else (row[1], str(value))

    async def _load(self, connection: Connection, keys: Sequence[Key]) -> None:
        if len(self._cache) + len(keys) > _CACHED_DOCUMENTS:
            self._cache.clear()
        cursor = await connection.execute(
            self._sql("load"), _arrays(keys), binary=True, prepare=True
        )
        self._cache.update(dict.fromkeys(keys))
        decode = self._decoder.decode
        for tenant, key, document in await cursor.fetchall():
            self._cache[tenant, key] = decode(document)

    def _evolve(self, work: _Work) -> None:
        for item in work.events:
            if item.key not in work.before:
                if item.key not in self._cache:
                    raise CannotApply("a document was not loaded", item.position)
                work.before[item.key] = work.states[item.key] = self._cache[item.key]
            work.last[item.key] = item.position
        try:
            for _ in evolve_all(self._fold, work.states, work.events):
                pass
        except Failed as failure:
            raise CannotApply(failure.reason, failure.position) from failure

    async def _write(self, connection: Connection, work: _Work, upto: int) -> None:
        kept, removed = work.changed()
        if kept:
            await connection.execute(self._sql("write"), _documents(work, kept), prepare=True)
        if removed:
            await connection.execute(self._sql("remove"), _arrays(removed))
        for position, key, reason, status in work.culprits:
            keys = None if key is None else [key[1]]
            await self._set_aside(connection, position, keys, reason, status=status)
        if work.followers:
            parameters = _arrays([key for _, key in work.followers])
            positions = arrays.bigint_array(position for position, _ in work.followers)
            await connection.execute(
                SQL["stored.follow"], parameters | {"view": self.name, "positions": positions}
            )
        if (kept or removed) and self._readers:
            await self._note_changes(connection, work, [*kept, *removed], upto)

    async def _note_changes(
        self, connection: Connection, work: _Work, changed: Sequence[Key], upto: int
    ) -> None:
        def documents(states: Mapping[Key, Any]) -> Iterator[bytes | None]:
            return (None if states[key] is None else _encode(states[key]) for key in changed)

        parameters = _arrays(changed) | {
            "upto": upto,
            "old": arrays.jsonb_array(documents(work.before)),
            "new": arrays.jsonb_array(documents(work.states)),
        }
        await connection.execute(self._sql("note_changes", self.changes), parameters)
        self._batches += 1
        if self._batches % _PRUNE_EVERY == 0:
            await connection.execute(
                self._sql("prune_changes", self.changes),
                {"readers": [view.name for view in self._readers]},
            )

    def _remember(self, work: _Work) -> None:
        self._cache.update(work.states)
        for _, key, _, status in work.culprits:
            if status == "parked" and key is not None:
                self._parked.add(key)

    # Checking ------------------------------------------------------------------------------------

    async def touched(
        self, connection: Connection, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The keys that events in (after, upto] belong to; see StoredView."""
        parameters = {
            "key": self._fold.key,
            "types": self._fold.type_names,
            "after": after,
            "upto": upto,
            "parked": list(parked),
        }
        cursor = await connection.execute(SQL["documents.touched"], parameters)
        return [row[0] for row in await cursor.fetchall()]

    async def verify(self, report: Report | None = None, *, limit: int = 20) -> Verification:
        """Folds the log again, in slices of keys that fit in memory, and compares every document."""
        async with snapshot(self._database) as connection:
            await self._status(connection)
            upto = await _scalar(connection, SQL["stored.checkpoint"], {"view": self.name})
            rows = await _scalar(connection, self._sql("rows"), {})
            aside = await self._not_applied(connection)
            given_up = {position for position, _, _, status in aside if status != "parked"}
            parked = {
                (t, key) for _, t, keys, status in aside if status == "parked" for key in keys or ()
            }
            slices = rows // _VERIFIED_AT_ONCE + 1
            differences: list[Difference] = []
            for number in range(slices):
                expected: dict[Key, D | None] = {}
                after = 0
                while True:
                    first = await _scalar(
                        connection, SQL["stored.first_after"], {"after": after, "upto": upto}
                    )
                    if first is None:
                        break
                    end = min(upto, first + _READ_AT_ONCE - 1)
                    read = await self._rows(connection, after, end)
                    await asyncio.to_thread(
                        self._expect, expected, read, (number, slices), parked, given_up
                    )
                    after = end
                    if report is not None:
                        report(number * (upto - first) + end - first, slices * (upto - first))
                differences += await self._compare(connection, expected, (number, slices), parked)
        return Verification(
            self.name, upto, rows, len(differences), tuple(differences[:limit]), len(parked)
        )

    def _expect(
        self,
        expected: dict[Key, D | None],
        rows: Iterable[tuple[Any, ...]],
        part: tuple[int, int],
        parked: set[Key],
        given_up: set[int],
    ) -> None:
        events = (
            item
            for row in rows
            if row[0] not in given_up
            and (key := self._key_of(row)) not in parked
            and key is not None
            and slice_of(key, part[1]) == part[0]
            and (item := self._decode(row)) is not None
        )
        for _ in evolve_all(self._fold, expected, events):
            pass

    async def _compare(
        self,
        connection: Connection,
        expected: dict[Key, D | None],
        part: tuple[int, int],
        parked: set[Key],
    ) -> list[Difference]:
        differences = []
        async with connection.cursor(name="stored") as cursor:
            await cursor.execute(self._sql("stored"))
            async for tenant, key, text in cursor:
                place = (tenant, key)
                if place in parked or slice_of(place, part[1]) != part[0]:
                    continue
                wanted = expected.pop(place, None)
                if wanted is None or msgspec.json.decode(text) != msgspec.json.decode(
                    _encode(wanted)
                ):
                    differences.append(
                        Difference(tenant, key, _plain(wanted), msgspec.json.decode(text))
                    )
        differences += [
            Difference(*k, _plain(d), None) for k, d in expected.items() if d is not None
        ]
        return differences

    # Parked events -------------------------------------------------------------------------------

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Applies the parked events of the keys concerned again, in order, up to the first failure."""
        async with self._database.transaction() as connection:
            await self._status(connection)
            await connection.execute(SQL["stored.disturb"], {"view": self.name})
            waiting = await (
                await connection.execute(
                    SQL["stored.parked_here"], {"view": self.name, "positions": None}
                )
            ).fetchall()
            wanted = {
                (tenant, tuple(keys or ()))
                for position, tenant, keys in waiting
                if positions is None or position in positions
            }
            await self._opened(connection)
            work = _Work()
            for position, tenant, keys in waiting:
                if (tenant, tuple(keys or ())) in wanted:
                    await self._again(connection, work, position)
            await self._write(connection, work, 0)
            done = [item.position for item in work.events]
            await connection.execute(SQL["stored.unpark"], {"view": self.name, "positions": done})
            self._cache.clear()
            return len(done)

    async def _again(self, connection: Connection, work: _Work, position: int) -> None:
        """Tries one parked event; a key that fails again stays parked from there on."""
        stuck = {key for _, key in work.followers}
        for row in await self._rows(connection, position - 1, position):
            key = self._key_of(row)
            if key is None or key in stuck:
                continue
            try:
                item = self._decode(row)
                if item is None:
                    continue
                if key not in work.before:
                    await self._load(connection, [key])
                    work.before[key] = work.states[key] = self._cache[key]
                for _ in evolve_all(self._fold, work.states, [item]):
                    work.last[key] = position
                work.events.append(item)
            except (CannotApply, Failed):
                work.followers.append((position, key))

    # Reading -------------------------------------------------------------------------------------

    def row_of(self, values: Sequence[Any]) -> D:
        """A stored document as the fold's state."""
        return self._decoder.decode(values[0])


def _documents(work: _Work, kept: Sequence[Key]) -> dict[str, Any]:
    return _arrays(kept) | {
        "documents": arrays.jsonb_array(_encode(work.states[key]) for key in kept),
        "positions": arrays.bigint_array(work.last[key] for key in kept),
    }


def _arrays(keys: Sequence[Key]) -> dict[str, Any]:
    return {
        "tenants": arrays.text_array(tenant for tenant, _ in keys),
        "keys": arrays.text_array(key for _, key in keys),
    }


def _plain(document: Document | None) -> Any:
    return None if document is None else msgspec.json.decode(_encode(document))


async def _scalar(connection: Connection, statement: Any, parameters: dict[str, Any]) -> Any:
    row = await (await connection.execute(statement, parameters)).fetchone()
    return None if row is None else row[0]
