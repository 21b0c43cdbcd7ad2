"""Feeds' rows in ClickHouse: one table for each event type, sorted by tenant and stream, cut by month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from headwater.errors import StoreRefused
from headwater.events import Column
from headwater.stores.clickhouse.batches import ClickHouseBatches
from headwater.stores.clickhouse.columns import Kept, kept, structure
from headwater.stores.clickhouse.recomputing import recomputed
from headwater.stores.clickhouse.text import listed, quoted, statement
from headwater.views.batches import Part, ReadPart, StoredFile
from headwater.views.recomputation import Recomputation, Recomputed
from headwater.views.storage import Hold, Place

_CHUNK = 100_000
_BLOCK_BITS = 40
_FIRST_YEAR = 2020


class ClickHouseRows(ClickHouseBatches):
    """See OutsideRows. A file is a table's rows of one run of 100,000 positions."""

    # Room ----------------------------------------------------------------------------------------

    async def prepare(self, place: Place, columns: Mapping[str, Sequence[Column]]) -> None:
        """Creates the tables, and what readers see: the rows of each up to the checkpoint, and all together."""
        engine = self._engine
        for type_name, declared in columns.items():
            _check(type_name, declared)
            await engine.run(self.table_statement(place, type_name, declared))
            await engine.run(
                statement(
                    "rows.show", name=self._shown(place, type_name), on_cluster=engine.on_cluster,
                    table=self.table(place, type_name), checkpoints=engine.checkpoints,
                    log=place.log, view=place.view, generation=place.generation,
                )
            )  # fmt: skip
        parts = [
            statement("rows.part", columns=_shared(columns), shown=self._shown(place, type_name))
            for type_name in columns
        ]
        await engine.run(
            statement(
                "rows.show_all", name=self._shown(place), on_cluster=engine.on_cluster,
                parts="UNION ALL ".join(parts),
            )
        )  # fmt: skip

    def table_statement(self, place: Place, type_name: str, columns: Sequence[Column]) -> str:
        """The statement that creates a type's table."""
        engine, store = self._engine, self._engine.store
        all_kept = [kept(column) for column in columns]
        fields = {c.name for c in columns if not c.expression.startswith("e.")}
        sorting = [name for name in store.order_by if name in fields] or ["stream"]
        known = {c.name for c in columns if c.expression in {"e.tenant", "e.stream"}} | fields
        order = [quoted(n) for n in ("tenant", *sorting) if n in known]
        ttl = ""
        if store.keep_months is not None:
            ttl = statement("rows.ttl", months=store.keep_months)
        return statement(
            "rows.create",
            table=self.table(place, type_name),
            on_cluster=engine.on_cluster,
            columns=",\n  ".join(f"{quoted(c.name)} {c.type}" for c in all_kept),
            engine=engine.kind("MergeTree"),
            order=listed([*order, "position"]),
            ttl=ttl,
            layout=engine.layout,
        )

    def table(self, place: Place, type_name: str) -> str:
        """The table of an event type."""
        return quoted(self._engine.database, self._name(place, type_name))

    def first(self) -> int:
        """The last position of the newest month that is no longer kept."""
        months = self._engine.store.keep_months
        if months is None:
            return 0
        now = datetime.now(UTC)
        block = (now.year - _FIRST_YEAR) * 12 + now.month - 1 - months
        return max(block << _BLOCK_BITS, 0)

    # Driving -------------------------------------------------------------------------------------

    async def trim(self, hold: Hold, upto: int) -> None:
        """Removes rows beyond a position."""
        engine = self._engine
        prefix = self._name(hold.place, "")
        found = await engine.query(
            statement("rows.tables"), {"database": engine.database, "prefix": prefix}
        )
        for (name,) in found:
            table = quoted(engine.database, name)
            beyond = statement("rows.beyond", table=table, reading=engine.reading)
            if (await engine.query(beyond, {"upto": upto}))[0][0]:
                await engine.run(
                    statement("rows.trim", table=table, on_cluster=engine.on_cluster, upto=upto)
                )

    async def purge(
        self, hold: Hold, rows: Sequence[tuple[StoredFile, Sequence[int]]], read: ReadPart
    ) -> str:
        """Makes the table anew with these rows as they are now, and drops the one of before; see PurgedRows.

        A mutation would keep the parts of before for minutes, and on a cluster that is what is done. The new table
        shares the files of all months that are not concerned; it has seen no blocks yet.
        """
        engine, place, kind = self._engine, hold.place, rows[0][0].type
        table, columns = self.table(place, kind), [kept(c) for c in (await read(*rows[0])).columns]
        gone = listed(str(position) for _, positions in rows for position in positions)
        named = {"table": table, "on_cluster": engine.on_cluster, "positions": gone}
        target = table
        if engine.store.cluster:
            await engine.run(statement("rows.purge", **named))
        else:
            target = engine.table("headwater_purged", self._name(place, kind))
            await self._copy_without(table, target, gone)
        for file, positions in rows:
            part = await read(file, positions)
            # Under a token of its own: the same rows may have been added before, and taken out again.
            await engine.run(self._fill(target, columns, uuid4().hex), None, part.data)
        if engine.store.cluster:
            return f"In parts of the table {table} that ClickHouse removes by itself, in minutes."
        await engine.run(statement("rows.exchange", table=table, other=target))
        await engine.run(statement("checkpoints.drop", table=target, on_cluster=""))
        return ""

    async def _copy_without(self, table: str, target: str, positions: str) -> None:
        """A table with all rows of another but those at some positions."""
        engine = self._engine
        await engine.run(statement("checkpoints.drop", table=target, on_cluster=""))
        await engine.run(statement("rows.create_like", table=table, other=target))
        found = await engine.query(statement("rows.months", table=table, positions=positions))
        for month, is_concerned in found:
            how = "rows.copy_month" if is_concerned else "rows.share_month"
            await engine.run(
                statement(
                    how, table=table, other=target, month=month, positions=positions,
                    settings=engine.inserting(uuid4().hex),
                )
            )  # fmt: skip

    async def _is_written(self, place: Place, part: Part) -> bool:
        """Whether any row of the part's range and month is there: its insert was one block."""
        engine = self._engine
        text = statement(
            "rows.is_written", table=self.table(place, part.type), reading=engine.reading
        )
        return bool((await engine.query(text, {"after": part.after, "upto": part.upto}))[0][0])

    def _insert(self, place: Place, part: Part) -> tuple[str, dict[str, Any]]:
        return self.table(place, part.type), {}

    # Reading -------------------------------------------------------------------------------------

    async def files(self, place: Place) -> tuple[int, list[StoredFile]]:
        """The checkpoint, and how many rows each run of positions has up to it."""
        engine = self._engine
        position = await self.position(place)
        prefix = self._name(place, "")
        found = await engine.query(
            statement("rows.tables"), {"database": engine.database, "prefix": prefix}
        )
        files = []
        for (name,) in found:
            text = statement(
                "rows.files", table=quoted(engine.database, name), size=_CHUNK,
                reading=engine.reading,
            )  # fmt: skip
            counted = await engine.query(text, {"after": self.first(), "upto": max(position, 0)})
            files += [
                _file(name.removeprefix(prefix), block, chunk, rows, position)
                for block, chunk, rows in counted
            ]
        return position, files

    def recomputed(
        self,
        place: Place,
        columns: Mapping[str, Sequence[Column]],  # noqa: ARG002 - the tables have them
        wanted: Recomputation,
    ) -> Recomputed:
        """What recomputes a SQL view by ClickHouse; see Recomputes."""
        return recomputed(self._engine, self, place, wanted)

    async def differing(self, place: Place, file: StoredFile, part: Part, limit: int) -> list[str]:
        """Where a run of positions does not hold exactly these rows; see OutsideRows."""
        engine = self._engine
        table = self.table(place, file.type)
        scratch = engine.table("headwater_scratch", uuid4().hex)
        await engine.run(statement("rows.create_scratch", scratch=scratch, table=table))
        try:
            if part.data:
                await engine.run(
                    self._fill(scratch, [kept(c) for c in part.columns]), None, part.data
                )
            hashes = [
                await engine.query(
                    statement("rows.hashes", table=each, reading=""),
                    {"after": file.after, "upto": file.upto},
                )
                for each in (scratch, table)
            ]
            if hashes[0] == hashes[1]:
                return []
            found = await engine.query(
                statement("rows.differing", scratch=scratch, table=table, reading=engine.reading),
                {"after": file.after, "upto": file.upto, "limit": limit},
            )
        finally:
            await engine.run(statement("checkpoints.drop", table=scratch, on_cluster=""))
        return [str(position) for (position,) in found]

    def _fill(self, scratch: str, columns: Sequence[Kept], token: str | None = None) -> str:
        return statement(
            "rows.fill_scratch", scratch=scratch,
            columns=listed(quoted(c.name) for c in columns), settings=self._engine.inserting(token),
            values=listed(c.value for c in columns), structure=structure(columns),
        )  # fmt: skip

    def locate(self, place: Place, file: StoredFile) -> str:
        """What shows a type's rows of this generation, as a query names it."""
        return self._shown(place, file.type)


def _shared(columns: Mapping[str, Sequence[Column]]) -> str:
    """The columns that all types have, of the same type."""
    first, *others = ({(c.name, kept(c).type): c for c in some} for some in columns.values())
    return listed(quoted(name) for name, of in first if all((name, of) in one for one in others))


def _check(type_name: str, columns: Sequence[Column]) -> None:
    if not any(column.expression == "e.position" for column in columns):
        raise StoreRefused(
            f"The events {type_name!r} have a field of their own named 'position', by which "
            "ClickHouse would not recognise a batch that it has.",
            hint="Rename the field, or leave the type out of the feed.",
        )


def _file(type_name: str, block: int, chunk: int, rows: int, position: int) -> StoredFile:
    month = f"{_FIRST_YEAR + block // 12}-{block % 12 + 1:02}"
    after = max(chunk * _CHUNK - 1, (block << _BLOCK_BITS) - 1, 0)
    upto = min((chunk + 1) * _CHUNK - 1, ((block + 1) << _BLOCK_BITS) - 1, position)
    return StoredFile(f"{type_name}/{month}/{after}-{upto}", type_name, month, after, upto, rows, 0)
