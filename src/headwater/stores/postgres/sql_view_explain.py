"""Which events are behind a row of a SQL view over the log, and how it changed at each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from headwater.errors import DefinitionError
from headwater.log.database import Connection
from headwater.stores.postgres.sql_view import SqlViewPlan
from headwater.stores.postgres.sql_view_source import Sources
from headwater.stores.postgres.sql_view_tables import written_value
from headwater.stores.postgres.sql_view_text import clause, enclosed, listed, name, template
from headwater.stores.postgres.sql_view_types import typed
from headwater.views.definition import Explanation
from headwater.views.driving.explaining import change_of, upto_of, whole_events
from headwater.views.driving.record import ViewRecord


async def explain_sql(
    plan: SqlViewPlan,
    record: ViewRecord,
    connection: Connection,
    key: Sequence[str | None],
    tenant: str,
    limit: int,
) -> Explanation:
    """Runs the view's query over the group's events alone, up to each of the newest.

    Looks at every event of the tenant that the query reads.
    """
    query = plan.query
    if query.over_documents:
        raise DefinitionError(
            f"The view {query.name!r} reads the documents of {query.reads[0]!r}.",
            hint="Explain a document of that view.",
        )
    if len(key) != len(query.key):
        raise DefinitionError(
            f"The view {query.name!r} has the key ({', '.join(query.key)}), not {len(key)} values.",
            hint="Name one value for each part.",
        )
    upto, aside = await upto_of(record, connection)
    asked: dict[str, Any] = {"tenant": tenant, "types": list(query.reads), "upto": upto}
    asked |= {f"key_{n}": part for n, part in enumerate(key, start=1)}
    sources = Sources(query)
    cursor = await connection.execute(_positions(plan, sources), asked)
    positions = [row[0] for row in await cursor.fetchall()]
    events = await whole_events(connection, positions[-limit:])
    statement, changes = _row(plan, sources), []
    for place in positions[-limit:]:
        counted = [p for p in positions if p <= place and p not in aside]
        cursor = await connection.execute(statement, asked | {"positions": counted})
        row = await cursor.fetchone()
        changes.append(change_of(events[place], None if row is None else row[0], aside.get(place)))
    return Explanation(query.name, tenant, tuple(key), upto, len(positions), tuple(changes))


def _same_group(plan: SqlViewPlan) -> sql.Composed:
    """Whether a row of the source is of the group asked for; parts are compared as text."""
    expressions = {output.name: enclosed(output.text) for output in plan.query.keys}
    conditions: list[sql.Composable] = [sql.SQL("headwater_tenant = %(tenant)s")]
    conditions += [
        sql.SQL("{}::text IS NOT DISTINCT FROM {}::text").format(
            expressions[part], sql.Placeholder(f"key_{n}")
        )
        for n, part in enumerate(plan.query.key, start=1)
    ]
    return sql.SQL(" AND ").join(conditions)


def _positions(plan: SqlViewPlan, sources: Sources) -> sql.Composed:
    return template("positions_of").format(
        source=sources.rows("of_one"), where=sources.where(_same_group(plan))
    )


def _row(plan: SqlViewPlan, sources: Sources) -> sql.Composed:
    types = plan.tables.types
    outputs = [
        sql.SQL("{} AS {}").format(
            typed(written_value(types, output), types.outputs[output.name]), name(output.name)
        )
        for output in plan.query.outputs
    ]
    ordinals = [
        sql.SQL(str(place))
        for place, output in enumerate(plan.query.outputs, start=1)
        if output.kind == "key"
    ]
    return template("row_among").format(
        outputs=listed(outputs),
        source=sources.rows("among"),
        where=sources.where(_same_group(plan)),
        group_by=clause("GROUP BY", listed(ordinals) if ordinals else None),
    )
