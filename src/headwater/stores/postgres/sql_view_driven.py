"""What SQL views have in common, wherever their rows are: Postgres understands their queries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import psycopg

from headwater.errors import ViewStale
from headwater.log.database import Connection
from headwater.stores.postgres.sql_view import SqlViewPlan
from headwater.stores.postgres.sql_view_explain import explain_sql
from headwater.stores.postgres.sql_view_recomputed import RecomputedComparison
from headwater.stores.postgres.sql_view_text import template
from headwater.views.definition import Difference, Explanation, Sample, Verification
from headwater.views.driving.record import snapshot
from headwater.views.driving.view import DrivenView
from headwater.views.recomputation import Recomputation
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
        found: list[Any] = []
        if differing:  # it would be computed once more
            cursor = await connection.execute(rows_of, parameters | {"limit": limit})
            found = await cursor.fetchall()
        differences = tuple(_difference(self._view.query.key, *row) for row in found)
        keyless = sum(status == "parked" and not keys for _, _, keys, status in aside)
        return Verification(
            self.name, upto, rows, differing, differences, len(set(parked)) + keyless
        )

    @abstractmethod
    def _held(self, connection: Connection) -> AbstractAsyncContextManager[int]:
        """A snapshot of the log in which the plan's table holds the view's groups up to a position."""

    async def verify_by(
        self, recompute: Callable[[Recomputation], Awaitable[bytes]], *, limit: int = 20
    ) -> Verification:
        """Compares the view with its query as another engine recomputes it; approximations are left out.

        Raises ViewStale, and what ``recompute`` raises.
        """
        async with self._database.connection() as connection:
            if (status := await self.learn(connection)) != "current":
                raise ViewStale(
                    f"The view {self.name!r} is {status}: what is stored does not follow from its definition.",
                    hint=f"Run headwater rebuild {self.name}."
                    if status == "stale"
                    else "Run headwater up or init.",
                )
            compared = RecomputedComparison(self.plan)
            for statement in compared.create():  # before the snapshot, which writes nothing
                await connection.execute(statement)
            try:
                async with self._held(connection) as upto:
                    return await self._recomputed(connection, upto, recompute, limit)
            finally:
                await connection.execute(compared.drop())

    async def _recomputed(
        self,
        connection: Connection,
        upto: int,
        recompute: Callable[[Recomputation], Awaitable[bytes]],
        limit: int,
    ) -> Verification:
        compared = RecomputedComparison(self.plan)
        aside = await self.record.not_applied(connection)
        ordering = await (await connection.execute(template("orders_by_bytes"))).fetchone()
        assert ordering is not None
        positions = [row[0] for row in aside if row[0] <= upto]
        wanted = compared.wanted(upto, positions, orders_by_bytes=bool(ordering[0]))
        groups = await recompute(wanted)
        async with connection.cursor() as cursor, cursor.copy(compared.fill()) as copy:
            await copy.write(groups)
        parked = [k for _, _, keys, status in aside if status == "parked" for k in keys or ()]
        parameters = {"parked_keys": parked, "upto": upto, "limit": limit}
        counted = await (await connection.execute(compared.count(), parameters)).fetchone()
        assert counted is not None
        cursor = await connection.execute(compared.differing(), parameters)
        found = await cursor.fetchall()
        keyless = sum(status == "parked" and not keys for _, _, keys, status in aside)
        return Verification(
            self.name,
            upto,
            counted[0],
            found[0][3] if found else 0,
            tuple(_both(self._view.query.key, *row[:3]) for row in found),
            len(set(parked)) + keyless,
            compared.excluded,
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


def _both(
    key: tuple[str, ...],
    tenant: str,
    expected: dict[str, Any] | None,
    stored: dict[str, Any] | None,
) -> Difference:
    """The rows of both sides of one key."""
    row = expected or stored or {}
    return Difference(
        tenant, ", ".join(f"{name}={row.get(name)}" for name in key), expected, stored
    )
