"""Reading buckets of time as a series without gaps: empty buckets are filled when read, and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import msgspec
from psycopg import sql

from headwater.errors import DefinitionError
from headwater.views import SqlView
from headwater.views.batches import Within
from headwater.views.store import Store

R = TypeVar("R", bound=msgspec.Struct)

MOST_BUCKETS = 100_000
_COUNTS = frozenset({"count", "count_distinct", "about_distinct"})


class SeriesReads(Generic[R]):
    """The reads of a SQL view whose key has a bucket of time."""

    _app: Any
    view: SqlView
    store: Store | None
    bucket: str | None

    async def series(
        self,
        *key: object,
        start: datetime | date,
        end: datetime | date,
        every: timedelta,
        carry: Sequence[str] = (),
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[R]:
        """A row for each bucket from ``start``, before ``end``, of the rest of the key.

        In a bucket without events counts are 0, what ``carry`` names is what it was in the last bucket before, however
        long ago, and the rest is None. Raises as ``get`` does, and DefinitionError where a stored bucket is not
        ``start`` and a whole number of ``every``.
        """
        query = self.view.query
        rest = [name for name in query.key if name != self.bucket]
        aggregates = {output.name for output in query.aggregates}
        if self.bucket is None or len(key) != len(rest) or not aggregates.issuperset(carry):
            raise DefinitionError(
                f"The view {self.view.name!r} has no such series.",
                hint=f"Its bucket is {self.bucket}, declared by bucket=; the rest of its key is "
                f"({', '.join(rest)}), and it may carry {', '.join(sorted(aggregates))}.",
            )
        length: timedelta = cast("Any", end) - start
        if every <= timedelta(0) or length / every > MOST_BUCKETS:
            raise DefinitionError(
                f"The series has more than {MOST_BUCKETS} buckets.", hint="Read it in parts."
            )
        given = dict(zip(rest, key, strict=True))
        asked = (tenant, at_least, timeout_seconds)
        found = await self._range(given, Within(start, end), MOST_BUCKETS, *asked)
        before: list[dict[str, Any]] = []
        if carry:
            before = await self._range(given, Within(None, start), 1, *asked)
        rows = self._filled(given, found, before, (start, end, every), carry)
        stored = self._app.stored(self.view.name)
        return [
            cast("R", stored.row_of([row[output.name] for output in query.outputs])) for row in rows
        ]

    def _filled(
        self,
        given: dict[str, object],
        found: list[dict[str, Any]],
        before: list[dict[str, Any]],
        extent: tuple[Any, Any, timedelta],
        carry: Sequence[str],
    ) -> list[dict[str, Any]]:
        assert self.bucket is not None
        start, end, every = extent
        kinds = {output.name: output.kind for output in self.view.query.aggregates}
        empty = {name: 0 if kind in _COUNTS else None for name, kind in kinds.items()}
        carried = {name: row[name] for row in before for name in carry}
        by_bucket = {row[self.bucket]: row for row in found}
        rows, at = [], start
        while at < end:
            row = by_bucket.pop(at, None)
            if row is None:
                row = {**given, self.bucket: at, **empty, **carried}
            carried |= {name: row[name] for name in carry if row[name] is not None}
            rows.append(row)
            at += every
        if by_bucket:
            raise DefinitionError(
                f"The bucket {min(by_bucket)} of {self.view.name!r} is not {start} and a whole number of {every}.",
                hint="Start at a bucket's beginning, in steps of the view's own.",
            )
        return rows

    async def _range(
        self,
        given: dict[str, object],
        within: Within,
        limit: int,
        tenant: str | None,
        at_least: str | None,
        timeout_seconds: float | None,
    ) -> list[dict[str, Any]]:
        """The stored rows in a range of buckets."""
        assert self.bucket is not None
        names = [output.name for output in self.view.query.outputs]
        whose = self._app.tenant_of(tenant)
        if self.store is not None:
            tables = self._app.tables(self.store)
            key = {self.bucket: within, **given}
            rows = await self._app.reader.outside(
                lambda place: tables.read(place, whose, names, key, limit),
                view=self.view.name, tenant=whose, at_least=at_least, timeout_seconds=timeout_seconds,
            )  # fmt: skip
        else:
            _, rows = await self._app.reader.rows(
                self._statement(given, within),
                {"tenant": whose, "start": within.start, "end": within.end, "limit": limit}
                | {f"key_{n}": value for n, value in enumerate(given.values(), start=1)},
                views=[self.view.name],
                tenant=whose,
                at_least=at_least,
                timeout_seconds=timeout_seconds,
            )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _statement(self, given: dict[str, object], within: Within) -> sql.Composed:
        assert self.bucket is not None
        bucket = sql.Identifier(self.bucket)
        conditions = [sql.SQL("tenant = %(tenant)s"), sql.SQL("{} < %(end)s").format(bucket)]
        if within.start is not None:
            conditions.append(sql.SQL("{} >= %(start)s").format(bucket))
        for number, (name, value) in enumerate(given.items(), start=1):
            place: sql.Composable = sql.SQL("IS NULL")
            if value is not None:
                place = sql.SQL("= {}").format(sql.Placeholder(f"key_{number}"))
            conditions.append(sql.SQL("{} {}").format(sql.Identifier(name), place))
        return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} {} LIMIT %(limit)s").format(
            sql.SQL(", ").join(sql.Identifier(o.name) for o in self.view.query.outputs),
            sql.Identifier("headwater_views", self.view.name),
            sql.SQL(" AND ").join(conditions),
            bucket,
            sql.SQL("ASC" if within.start is not None else "DESC"),
        )
