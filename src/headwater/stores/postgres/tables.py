"""Tables of views: their names, their row-level security and grants."""

from __future__ import annotations

from psycopg import sql

from headwater.log.database import Connection
from headwater.stores.postgres.sql_view_tables import SCHEMA
from headwater.stores.postgres.sql_view_text import table_template

_SECURITY = (
    "enable_row_security",
    "force_row_security",
    "tenant_policy",
    "relay_policy",
    "operator_policy",
)


def identifier(name: str) -> sql.Identifier:
    """A name in the schema of views."""
    return sql.Identifier(SCHEMA, name)


async def secure(connection: Connection, table: sql.Identifier) -> None:
    """Row-level security and grants, as on every table of views."""
    for policy in _SECURITY:
        await connection.execute(table_template(policy).format(table=table))
    for grant in ("grant_reading", "grant_keeping"):
        await connection.execute(table_template(grant).format(relation=table))
