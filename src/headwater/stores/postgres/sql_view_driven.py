"""What SQL views have in common, wherever their rows are: Postgres understands their queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from headwater.log.database import Connection
from headwater.stores.postgres.sql_view import SqlViewPlan
from headwater.stores.postgres.sql_view_explain import explain_sql
from headwater.views.definition import Difference, Explanation, Sample, Verification
from headwater.views.driving.record import snapshot
from headwater.views.driving.view import DrivenView
from headwater.views.sql_view import SqlView


class DrivenSql(DrivenView):
    """A SQL view, planned by Postgres when its status is learnt; subclasses say where its rows are."""

    _view: SqlView
    _planned: SqlViewPlan | None = None

    @property
    def plan(self) -> SqlViewPlan:
        """What Postgres said of the query, and the statements; known once the view's status is."""
        assert self._planned is not None
        return self._planned

    async def _keys_of(self, position: int) -> list[str] | None:
        """The groups of an event, or None where they cannot be told."""
        try:
            cursor = await self.record.connection.execute(self.plan.keys_of, {"position": position})
            return [row[0] for row in await cursor.fetchall()] or None
        except psycopg.DataError:
            return None

    async def touched(
        self, connection: Connection, *, after: int, upto: int, parked: Sequence[int]
    ) -> list[str] | None:
        """The groups that events in (after, upto] belong to; see StoredView."""
        if self._planned is None:
            await self.learn(connection)
        batch = {"after": after, "upto": upto, "parked": list(parked)}
        cursor = await connection.execute(self.plan.touched, batch)
        return [row[0] for row in await cursor.fetchall()]

    async def _compared(
        self, connection: Connection, upto: int, limit: int, sample: Sample | None
    ) -> Verification:
        """The plan's table beside the view's own query over the log, in the connection's snapshot."""
        aside = await self.record.not_applied(connection)
        parked = [k for _, _, keys, status in aside if status == "parked" for k in keys or ()]
        parameters = {"upto": upto, "parked": [row[0] for row in aside], "parked_keys": parked}
        count, rows_of = self.plan.verify_count, self.plan.verify
        if sample is not None:
            count, rows_of = self.plan.verify_sample_count, self.plan.verify_sample
            parameters |= {"slices": sample.slices, "slice": sample.number}
        cursor = await connection.execute(count, parameters)
        counted = await cursor.fetchone()
        assert counted is not None
        rows, differing = counted
        cursor = await connection.execute(rows_of, parameters | {"limit": limit})
        differences = tuple(
            _difference(self._view.query.key, *row) for row in await cursor.fetchall()
        )
        keyless = sum(status == "parked" and not keys for _, _, keys, status in aside)
        return Verification(
            self.name, upto, rows, differing, differences, len(set(parked)) + keyless
        )

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """The events behind a row, and how it changed at each of the newest; see StoredView."""
        async with snapshot(self._database) as connection:
            await self.learn(connection)
            return await explain_sql(self.plan, self.record, connection, key, tenant, limit)

    def row_of(self, values: Sequence[Any]) -> Any:
        """A stored row as the view's row type."""
        names = [output.name for output in self._view.query.outputs]
        return msgspec.convert(dict(zip(names, values, strict=True)), self._view.row, strict=False)


def _difference(key: tuple[str, ...], side: str, tenant: str, row: dict[str, Any]) -> Difference:
    """A row that is on one side of a comparison only."""
    place = ", ".join(f"{name}={row.get(name)}" for name in key)
    expected, stored = (row, None) if side == "expected" else (None, row)
    return Difference(tenant, place, expected, stored)
