"""What Headwater needs of a database driver: statements in the caller's own transaction.

A driver is found by the package that the connection's class comes from, so none is imported before an
application does.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from importlib import import_module
from typing import Any, Protocol, Unpack, cast

import msgspec
import psycopg

from headwater.errors import SettingError
from headwater.events import Event
from headwater.log import arrays
from headwater.log.enqueuing import Enqueue, Enqueued, JobOptions, batches_of
from headwater.log.tokens import Token
from headwater.log.writing import AppendOptions, Fact, Group, Writer, Written, group_of

Rows = Sequence[tuple[Any, ...]]

_DRIVERS = (
    ("psycopg", "psycopg"),
    ("asyncpg", "asyncpg"),
    ("sqlalchemy.ext.asyncio", "sqlalchemy_async"),
    ("sqlalchemy", "sqlalchemy"),
    ("django", "django"),
)


class AsyncSession(Protocol):
    """An asynchronous connection or session, as its commit tells."""

    def commit(self) -> Awaitable[None]:
        """Ends the transaction."""
        ...


class BlockingSession(Protocol):
    """A blocking connection or session, as its commit tells."""

    def commit(self) -> None:
        """Ends the transaction."""
        ...


class Call(msgspec.Struct, frozen=True):
    """One of the statements of ``drivers/sql``, as any driver can pass it: texts by name."""

    name: str
    parameters: dict[str, str | None]


class AsyncDriver(Protocol):
    """Runs calls in the transaction of an asynchronous connection or session."""

    async def run(self, call: Call) -> Rows:
        """The rows that a call answers. Raises Headwater's errors."""
        ...


class BlockingDriver(Protocol):
    """Runs calls in the transaction of a blocking connection or session."""

    def run(self, call: Call) -> Rows:
        """The rows that a call answers. Raises Headwater's errors."""
        ...


def driver_of(connection: object) -> AsyncDriver | BlockingDriver:
    """The driver of a connection or session. Raises SettingError for one that is not known."""
    if isinstance(connection, psycopg.AsyncConnection):
        found = import_module("headwater.log.drivers.psycopg_async")
        return cast("AsyncDriver", found.driver(connection))
    for ancestor in type(connection).__mro__:
        for package, module in _DRIVERS:
            if f"{ancestor.__module__}.".startswith(f"{package}."):
                found = import_module(f"headwater.log.drivers.{module}")
                return cast("AsyncDriver | BlockingDriver", found.driver(connection))
    raise SettingError(
        f"Headwater does not know connections of {type(connection).__module__}.{type(connection).__qualname__}.",
        hint="Pass one of psycopg, asyncpg, SQLAlchemy or Django, or run SELECT headwater.append(...) on it.",
    )


def writer_on(connection: object, tenant: str) -> Writer | ForeignWriter | BlockingWriter:
    """A writer in the transaction of an application's connection or session."""
    if isinstance(connection, psycopg.AsyncConnection):
        arrays.register(connection)
        return Writer(connection, tenant)
    driver = driver_of(connection)
    if inspect.iscoroutinefunction(driver.run):
        return ForeignWriter(cast("AsyncDriver", driver), tenant)
    return BlockingWriter(cast("BlockingDriver", driver), tenant)


def append_of(group: Group) -> Call:
    """The append of a group."""
    parameters = {
        "tenant": group.tenant,
        "events": msgspec.json.encode(_objects(group)).decode(),
        "idempotency_key": group.idempotency_key,
    }
    return Call("append", parameters)


def written_of(rows: Rows) -> Written:
    """What was appended, from the rows that the database answered."""
    positions = tuple(row[0] for row in rows)
    return Written(Token(rows[-1][2]), positions, tuple(row[1] for row in rows), rows[0][3])


def enqueues_of(tenant: str, jobs: Sequence[Enqueue], options: JobOptions) -> list[Call]:
    """The calls that create jobs."""
    return [
        Call("enqueue", {"tenant": tenant, "queue": queue, "items": items})
        for queue, items in batches_of(jobs, options)
    ]


def enqueued_of(rows: Rows) -> Enqueued:
    """What was enqueued, from the rows that the database answered."""
    return Enqueued([row[0] for row in rows], [row[1] for row in rows])


def _objects(group: Group) -> list[dict[str, Any]]:
    raw = msgspec.Raw
    objects = []
    for n in range(len(group)):
        keys, metadata = group.keys[n], group.metadata[n]
        fields = {
            "stream": group.streams[n],
            "type": group.types[n],
            "data": raw(group.data[n]),
            "schema_version": group.schema_versions[n],
            "expected_version": group.expected_versions[n],
            "metadata": None if metadata is None else raw(metadata),
            "id": group.ids[n],
            "keys": None if keys is None else raw(keys),
            "occurred_at": group.occurred_at[n],
        }
        objects.append({name: value for name, value in fields.items() if value is not None})
    return objects


class ForeignWriter:
    """Appends inside the transaction of an application's own asynchronous connection or session."""

    def __init__(self, driver: AsyncDriver, tenant: str) -> None:
        self._driver = driver
        self._tenant = tenant

    async def append(self, *events: Event | Fact, **options: Unpack[AppendOptions]) -> Written:
        """Appends events that commit or roll back with the caller's transaction; see Writer."""
        group = group_of(self._tenant, events, **options)
        return written_of(await self._driver.run(append_of(group)))

    async def enqueue(self, *jobs: Enqueue, **options: Unpack[JobOptions]) -> Enqueued:
        """Creates jobs that exist if the caller's transaction commits; see Writer."""
        calls = enqueues_of(self._tenant, jobs, options)
        return enqueued_of([row for call in calls for row in await self._driver.run(call)])


class BlockingWriter:
    """Appends inside the transaction of an application's own blocking connection or session."""

    def __init__(self, driver: BlockingDriver, tenant: str) -> None:
        self._driver = driver
        self._tenant = tenant

    def append(self, *events: Event | Fact, **options: Unpack[AppendOptions]) -> Written:
        """Appends events that commit or roll back with the caller's transaction; see Writer."""
        group = group_of(self._tenant, events, **options)
        return written_of(self._driver.run(append_of(group)))

    def enqueue(self, *jobs: Enqueue, **options: Unpack[JobOptions]) -> Enqueued:
        """Creates jobs that exist if the caller's transaction commits; see Writer."""
        calls = enqueues_of(self._tenant, jobs, options)
        return enqueued_of([row for call in calls for row in self._driver.run(call)])
