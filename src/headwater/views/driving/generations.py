"""Generations of a view in the log's database: their rows there, and their tables."""

from __future__ import annotations

from psycopg import sql

from headwater.log.database import Connection
from headwater.views.driving.record import SQL


async def drop_generation(connection: Connection, view: str, row: str) -> None:
    """Removes a generation's rows, and its tables in the log's database, where it is.

    Another store removes what it holds of it when the view is next opened.
    """
    cursor = await connection.execute(SQL["rebuild.rows"], {"view": row})
    found = await cursor.fetchone()
    if found is None:
        return
    table = f"{view}__{found[3]}"
    cursor = await connection.execute(SQL["rebuild.tables"], {"table": table})
    for (relation,) in await cursor.fetchall():
        drop = sql.SQL("DROP TABLE {}").format(sql.Identifier("headwater_views", relation))
        await connection.execute(drop)
    for statement in ("rebuild.clear_parked", "rebuild.forget", "slices.forget"):
        await connection.execute(SQL[statement], {"view": row})


async def copy_generation(connection: Connection, view: str, *, taken: str, filled: str) -> int:
    """Copies the rows, parked events and checkpoint of one generation to another, which is empty; the position.

    ``taken`` and ``filled`` are names of records of the view. In a transaction.
    """
    generations = []
    for row in (taken, filled):
        cursor = await connection.execute(SQL["rebuild.rows"], {"view": row})
        found = await cursor.fetchone()
        assert found is not None
        generations.append(f"{view}__{found[3]}")
    source, target = generations
    cursor = await connection.execute(SQL["rebuild.tables"], {"table": target})
    for (relation,) in await cursor.fetchall():
        columns = await connection.execute(SQL["baseline.columns"], {"table": relation})
        names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in await columns.fetchall())
        await connection.execute(
            sql.SQL(SQL["baseline.copy"]).format(
                target=sql.Identifier("headwater_views", relation),
                source=sql.Identifier("headwater_views", source + relation.removeprefix(target)),
                columns=names,
            )
        )
    names_of = {"from": taken, "to": filled}
    await connection.execute(SQL["baseline.copy_parked"], names_of)
    cursor = await connection.execute(SQL["baseline.copy_checkpoint"], names_of)
    moved = await cursor.fetchone()
    assert moved is not None
    position: int = moved[0]
    return position
