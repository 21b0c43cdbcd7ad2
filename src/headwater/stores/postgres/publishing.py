"""The view that readers use, over one generation's table."""

from __future__ import annotations

from psycopg import sql
from psycopg.errors import DependentObjectsStillExist, InvalidTableDefinition

from headwater.errors import ViewInUse
from headwater.log.database import Connection
from headwater.stores.postgres.sql_view_text import template


async def point(connection: Connection, view: sql.Identifier, creation: sql.Composed) -> None:
    """Creates a view, or has the one that is there show something else; what rests on it stays.

    ``creation`` is a CREATE OR REPLACE VIEW. Raises ViewInUse where the columns are others than before, so that
    the view has to be made anew, and something rests on it.
    """
    try:
        async with connection.transaction():
            await connection.execute(creation)
    except InvalidTableDefinition:
        drop = template("drop_view", file="sql_view_tables.sql")
        try:
            async with connection.transaction():
                await connection.execute(drop.format(view=view))
                await connection.execute(creation)
        except DependentObjectsStillExist as error:
            told = (error.diag.message_detail or "").partition("\n")[0]
            raise ViewInUse(
                f"{view.as_string(connection)} has other columns now, and something of yours rests on it: {told}.",
                hint="Drop that, run the rebuild again, and make it anew over the new columns.",
            ) from error
