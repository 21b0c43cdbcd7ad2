"""The registry of event types in the log's database."""

from __future__ import annotations

import msgspec

from headwater.events import EventType, EventTypes
from headwater.log.database import SQL, Database
from headwater.log.failures import translated


async def register(operator: Database, types: EventTypes) -> list[EventType]:
    """Registers an app's event types, by an operator's connection; returns the new ones.

    Raises SchemaChanged where a version is registered with another schema.
    """
    new: list[EventType] = []
    async with operator.connection() as connection:
        for declared in types:
            with translated():
                cursor = await connection.execute(
                    SQL["log.register_type"],
                    {
                        "type": declared.name,
                        "schema_version": declared.schema_version,
                        "stream_pattern": declared.stream_pattern,
                        "schema": msgspec.json.encode(declared.schema).decode(),
                    },
                )
                row = await cursor.fetchone()
                if declared.upcasting.content:
                    await connection.execute(
                        SQL["log.register_upcasts"],
                        {
                            "type": declared.name,
                            "schema_version": declared.schema_version,
                            "upcasts": msgspec.json.encode(declared.upcasting.content).decode(),
                        },
                    )
            if row is not None and row[0]:
                new.append(declared)
    return new


async def registered(database: Database) -> list[EventType]:
    """The newest version of each type in the log's registry, for code that has no classes of its own."""
    async with database.connection() as connection:
        rows = await (await connection.execute(SQL["log.registered"])).fetchall()
    return [EventType.registered(*row) for row in rows]
