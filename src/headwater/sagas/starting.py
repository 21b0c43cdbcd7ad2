"""Starts an instance from a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgspec

from headwater.commands import Accepted, Command
from headwater.errors import VersionConflict
from headwater.log import Token
from headwater.log.carrying import carried
from headwater.log.database import Connection, Database
from headwater.log.failures import translated
from headwater.log.writing import Metadata
from headwater.sagas.definition import SagaDefinition
from headwater.sagas.saga import encoded
from headwater.sagas.statements import SQL


async def start_saga(
    database: Database,
    saga: SagaDefinition[Any],
    command: Command,
    tenant: str,
    metadata: Metadata | None = None,
    idempotency_key: str | None = None,
    within: Callable[[Connection, Accepted], Awaitable[None]] | None = None,
) -> Accepted:
    """Starts the instance that a command names by the saga's key, else by the idempotency key, else a new one.

    Its start, its job and what ``within`` does are one commit. An instance that is there already is answered as a duplicate. Raises
    UnknownSaga before the app is deployed.
    """
    instance = saga.instance_of(command) or idempotency_key or uuid4().hex
    told = {"name": type(command).__name__, "data": encoded(command)}
    asked = {
        "saga": saga.name,
        "instance": instance,
        "command": msgspec.json.encode(told).decode(),
        "metadata": msgspec.json.encode(carried(metadata) or {}).decode(),
    }
    with suppress(_IsThere):
        async with database.transaction(tenant) as connection:
            accepted = await _start(connection, asked)
            if within is not None:
                await within(connection, accepted)
        return accepted
    async with database.transaction(tenant) as connection:
        named = {"tenant": tenant, "stream": f"saga/{saga.name}/{instance}"}
        row = await (await connection.execute(SQL["sagas.started"], named)).fetchone()
    assert row is not None
    return Accepted(
        database.identity.token(row[0]), positions=(row[0],), versions=(1,), duplicate=True
    )


class _IsThere(Exception):
    """The instance has been started."""


async def _start(connection: Connection, asked: Mapping[str, str]) -> Accepted:
    try:
        with translated():
            row = await (await connection.execute(SQL["sagas.start"], asked)).fetchone()
    except VersionConflict as error:
        raise _IsThere from error
    assert row is not None
    return Accepted(Token(row[1]), positions=(row[0],), versions=(1,))
