"""Appending: inside the caller's transaction, or in commits that callers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

import msgspec
from psycopg import AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from headwater import errors
from headwater.events import Event, EventType, encode
from headwater.events.personal import is_sealed
from headwater.log import arrays
from headwater.log.carrying import carried
from headwater.log.database import SQL, Connection
from headwater.log.enqueuing import Enqueue, Enqueued, JobOptions, batches_of
from headwater.log.failures import refusal, translated
from headwater.log.tokens import Token

_CHUNK_EVENTS = 25_000

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What an append answers: the token to read by, and where the events stand."""

    token: Token
    positions: Sequence[int]
    versions: Sequence[int]
    duplicate: bool = False

    @property
    def position(self) -> int:
        """The position of the last event."""
        return self.positions[-1]

    @property
    def version(self) -> int:
        """The version that the last event's stream has now."""
        return self.versions[-1]


@dataclass(slots=True)
class Group:
    """Events that stand or fall together, one list per field as the database takes them."""

    tenant: str
    idempotency_key: str | None = None
    streams: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    expected_versions: list[int | None] = field(default_factory=list)
    metadata: list[bytes | None] = field(default_factory=list)
    ids: list[UUID | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    occurred_at: list[datetime | None] = field(default_factory=list)
    schema_versions: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.streams)

    def add(
        self,
        event: Event,
        *,
        expect: int | None = None,
        metadata: bytes | None = None,
        event_id: UUID | None = None,
        keys: Sequence[str] | None = None,
        occurred_at: datetime | None = None,
        blind: Sequence[str] = (),
    ) -> None:
        """Adds an event. ``expect`` is its stream's version just before it.

        ``keys`` stand in place of those that its class says; ``blind`` ones are added to them.
        """
        declared = EventType.of(type(event))
        for name in declared.personal:
            if isinstance(text := getattr(event, name), str) and not is_sealed(text):
                raise errors.InvalidEvent(
                    f"The personal field {name!r} of {declared.name!r} is in clear.",
                    hint="Seal the event first: await app.seal(event). app.append does so by itself.",
                )
        self.streams.append(declared.stream_of(event))
        self.types.append(declared.name)
        self.data.append(encode(event))
        self.expected_versions.append(expect)
        self.metadata.append(metadata)
        self.ids.append(event_id)
        carried = keys if keys is not None else declared.keys_of(event) or None
        if blind:
            carried = [*(carried or ()), *blind]
        self.keys.append(None if carried is None else msgspec.json.encode(list(carried)))
        self.occurred_at.append(occurred_at)
        self.schema_versions.append(declared.schema_version)

    def chunks(self, size: int) -> list[Group]:
        """The same events as several groups of at most ``size``."""
        if len(self) <= size:
            return [self]
        return [
            Group(
                self.tenant,
                None,
                *(getattr(self, name)[start : start + size] for name in _LISTS),
            )
            for start in range(0, len(self), size)
        ]


_LISTS = (
    "streams",
    "types",
    "data",
    "expected_versions",
    "metadata",
    "ids",
    "keys",
    "occurred_at",
    "schema_versions",
)


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """An event with what is known about it beyond its data, for appends of several.

    ``blind`` are keyed hashes of its personal text, which sealing adds.
    """

    event: Event
    expect: int | None = None
    metadata: Metadata | None = None
    id: UUID | None = None
    keys: Sequence[str] | None = None
    occurred_at: datetime | None = None
    blind: Sequence[str] = ()


Seal = Callable[[str, Sequence[Event | Fact]], Awaitable[Sequence[Event | Fact]]]
"""Seals the personal fields of a tenant's events."""


def event_of(item: Event | Fact) -> Event:
    """The event itself."""
    return item.event if isinstance(item, Fact) else item


class AppendOptions(TypedDict, total=False):
    """What an append may say beside its events; it holds for those that do not say otherwise.

    ``expect`` is the version of the first event's stream before the append; 0 means a new stream.
    """

    expect: int | None
    metadata: Metadata | None
    idempotency_key: str | None
    occurred_at: datetime | None
    keys: Sequence[str] | None


def group_of(
    tenant: str, events: Sequence[Event | Fact], **options: Unpack[AppendOptions]
) -> Group:
    """The group of some events. Raises InvalidEvent where there is none."""
    if not events:
        raise errors.InvalidEvent("There is nothing to append.", hint="Pass at least one event.")
    group = Group(tenant, options.get("idempotency_key"))
    metadata, keys = carried(options.get("metadata")), options.get("keys")
    occurred_at = options.get("occurred_at")
    shared = None if metadata is None else msgspec.json.encode(metadata)
    for index, item in enumerate(events):
        first = None if index else options.get("expect")
        if not isinstance(item, Fact):
            group.add(item, expect=first, metadata=shared, keys=keys, occurred_at=occurred_at)
            continue
        group.add(
            item.event,
            expect=first if item.expect is None else item.expect,
            metadata=shared
            if item.metadata is None
            else msgspec.json.encode(carried(item.metadata)),
            event_id=item.id,
            keys=keys if item.keys is None else item.keys,
            occurred_at=item.occurred_at or occurred_at,
            blind=item.blind,
        )
    return group


class Writer:
    """Appends inside the transaction of a connection, which stays the caller's to commit."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    async def append(self, *events: Event | Fact, **options: Unpack[AppendOptions]) -> Written:
        """Appends events that commit or roll back with the caller's transaction.

        Raises AppendRefused (VersionConflict, InvalidEvent, ...); the transaction is then aborted,
        as after any failed statement.
        """
        group = group_of(self._tenant, events, **options)
        connection = self._within()
        with translated():
            if len(group) == 1:
                return await _append_one(connection, group)
            return await append_group(connection, group)

    async def enqueue(self, *jobs: Enqueue, **options: Unpack[JobOptions]) -> Enqueued:
        """Creates jobs that exist if the caller's transaction commits; options hold for all of them.

        Raises UnknownQueue and JobRefused; the transaction is then aborted.
        """
        connection = self._within()
        with translated():
            return await enqueue(connection, self._tenant, jobs, options)

    def _within(self) -> Connection:
        connection = self._connection
        if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            raise errors.TransactionMissing(
                hint="Use `async with connection.transaction():` around both."
            )
        return connection


async def enqueue(
    connection: Connection, tenant: str, jobs: Sequence[Enqueue], options: JobOptions
) -> Enqueued:
    """Creates a tenant's jobs inside a transaction. Raises what Postgres says."""
    rows: list[tuple[Any, ...]] = []
    for queue, items in batches_of(jobs, options):
        parameters = {"tenant": tenant, "queue": queue, "items": items}
        cursor = await _cursor(connection).execute(SQL["log.enqueue"], parameters, prepare=True)
        rows += await cursor.fetchall()
    return Enqueued([row[0] for row in rows], [row[1] for row in rows])


async def _append_one(connection: Connection, group: Group) -> Written:
    cursor = await _cursor(connection).execute(
        SQL["log.append"],
        {
            "tenant": group.tenant,
            "stream": group.streams[0],
            "type": group.types[0],
            "data": group.data[0].decode(),
            "expected_version": group.expected_versions[0],
            "metadata": (group.metadata[0] or b"{}").decode(),
            "idempotency_key": group.idempotency_key,
            "id": group.ids[0],
            "keys": None if group.keys[0] is None else msgspec.json.decode(group.keys[0]),
            "occurred_at": group.occurred_at[0],
            "schema_version": group.schema_versions[0],
        },
        prepare=True,
    )
    row = await cursor.fetchone()
    assert row is not None
    position, version, token, duplicate = row
    return Written(Token(token), (position,), (version,), duplicate)


async def append_group(connection: Connection, group: Group) -> Written:
    if group.idempotency_key is not None and len(group) > _CHUNK_EVENTS:
        raise errors.LimitExceeded(
            f"An append with an idempotency key takes at most {_CHUNK_EVENTS:,} events.",
            hint="Split it under several keys; appends in one transaction still commit together.",
        )
    positions: list[int] = []
    versions: list[int] = []
    token = Token("")
    for chunk in group.chunks(_CHUNK_EVENTS):
        appended = await append_groups(connection, [chunk])
        if appended.outcomes:
            return _raise_or_repeat(appended)
        positions += appended.positions
        versions += appended.versions
        token = appended.token
    return Written(token, positions, versions)


def _raise_or_repeat(appended: Appended) -> Written:
    outcome = appended.outcomes[0]
    if outcome.get("refusal") is not None:
        raise refusal(outcome)
    log_epoch = appended.token.rpartition(".")[0]
    positions, versions = outcome["positions"], outcome["versions"]
    return Written(Token(f"{log_epoch}.{positions[-1]}"), positions, versions, duplicate=True)


@dataclass(frozen=True, slots=True)
class Appended:
    positions: Sequence[int]
    versions: Sequence[int]
    token: Token
    outcomes: Sequence[dict[str, Any]]


async def append_groups(connection: Connection, groups: Sequence[Group]) -> Appended:
    """Appends groups of one tenant in one statement."""
    parameters = packed(groups)
    cursor = await _cursor(connection).execute(SQL["log.append_groups"], parameters, binary=True)
    row = await cursor.fetchone()
    assert row is not None
    return Appended(row[0] or (), row[1] or (), Token(row[2]), row[3])


def packed(groups: Sequence[Group]) -> dict[str, object]:
    """Groups of one tenant as headwater.append_groups takes them."""
    numbers = [number for number, group in enumerate(groups) for _ in range(len(group))]
    return {
        "tenant": groups[0].tenant,
        "streams": arrays.text_array(value for g in groups for value in g.streams),
        "types": arrays.text_array(value for g in groups for value in g.types),
        "data": arrays.jsonb_array(value for g in groups for value in g.data),
        "groups": arrays.int_array(numbers) if len(groups) > 1 else None,
        "expected_versions": _sparse(groups, "expected_versions", arrays.int_array),
        "metadata": _sparse(groups, "metadata", arrays.jsonb_array),
        "ids": _sparse(groups, "ids", arrays.uuid_array),
        "keys": _sparse(groups, "keys", arrays.jsonb_array),
        "occurred_at": _sparse(groups, "occurred_at", arrays.instant_array),
        "schema_versions": arrays.int_array(value for g in groups for value in g.schema_versions),
        "idempotency_keys": msgspec.json.encode(
            {
                str(n): g.idempotency_key
                for n, g in enumerate(groups)
                if g.idempotency_key is not None
            }
        ).decode(),
    }


def _cursor(connection: Connection) -> AsyncCursor[tuple[Any, ...]]:
    """A plain cursor, whatever an application's own connection makes by default."""
    return AsyncCursor(connection, row_factory=tuple_row)


def _sparse(groups: Sequence[Group], name: str, pack: Any) -> Any:
    """A packed array, or NULL where no event has the field."""
    values = [value for group in groups for value in getattr(group, name)]
    return pack(values) if any(value is not None for value in values) else None
