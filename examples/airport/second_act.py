"""The second act: a table that nobody wants to touch, watched by a SELECT in a file.

The airport has kept ``airport.planes`` for years; its application knows nothing of Headwater. Its changes
become facts, a SELECT over it is kept live, its relay is killed, the SELECT is changed.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from rich.console import Console

from examples.airport.app import app
from examples.airport.checks import Check
from examples.airport.files import queries, statement
from examples.airport.shell import Shell, Up

TABLE = "airport.planes"
LIVE_SECONDS = 20.0


async def second_act(folder: Path, console: Console) -> list[Check]:
    """Plays it, and says what came of it. Raises CommandFailed."""
    console.print("\n[bold]Second act: a table of yours[/], and no change to its application", "")
    act = _Act(folder, console)
    try:
        await act.capture()
        with act.up:
            made = [await act.equal("select_equals_the_table"), await act.seen_live()]
            made += [await act.nothing_lost()]
        made += [await act.changed()]
    finally:
        act.up.stop()
        await act.put_back()
    return made


class _Act:
    def __init__(self, folder: Path, console: Console) -> None:
        self.shell = Shell(console)
        self.console = console
        self.views = folder / "views"
        self.up = Up(self.shell, self.views, folder / "up.log")
        self.select = queries("fleet")

    async def capture(self) -> None:
        """Each change of the table becomes a fact, and what is there already does too."""
        known = json.loads(await asyncio.to_thread(self.shell.run, "captures", "--json", shown=0))
        if not any(each["table"] == TABLE for each in known):
            await asyncio.to_thread(self.shell.run, "capture", TABLE, "--tenant", "main")
        self._write("fleet")
        if await self._stale():  # an earlier run left the other SELECT's rows
            await self._headwater("rebuild", "fleet")

    async def _headwater(self, *arguments: str, shown: int = 6) -> str:
        return await asyncio.to_thread(
            self.shell.run, "--app", str(self.views), *arguments, shown=shown
        )

    async def _stale(self) -> bool:
        rows = json.loads(await self._headwater("views", "--json", shown=0))
        return any(row["view"] == "fleet" and row["status"] == "stale" for row in rows)

    def _write(self, select: str) -> None:
        self.views.mkdir(exist_ok=True)
        (self.views / "fleet.sql").write_text(self.select[select])
        self.console.print("  views/fleet.sql", style="bold")
        for line in self.select[select].splitlines():
            self.console.print(f"    {line}", style="cyan", highlight=False, markup=False)

    async def equal(self, name: str, select: str = "fleet") -> Check:
        """Whether the view's rows, asked over HTTP, are what the SELECT says of the table now."""
        wanted = await self._asked(self.select[select].replace("airport_planes", TABLE))
        deadline = time.monotonic() + LIVE_SECONDS
        while True:
            page = await asyncio.to_thread(self.up.get, "/v1/views/fleet?limit=1000")
            found = sorted(_row(row["row"]) for row in page["rows"])
            if found == wanted or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self.console.print(f"  the view has {len(found)} rows; the table's own answer is the same: {found == wanted}")  # fmt: skip
        return Check(name, found == wanted)

    async def seen_live(self) -> Check:
        """How soon a browser sees what the application does with the table."""
        seen: Queue[dict[str, Any]] = Queue()
        self.up.follow("/v1/live/views/airport_planes", seen)
        await self._change("BOEING")
        began = time.monotonic()
        try:
            first = await asyncio.to_thread(seen.get, True, LIVE_SECONDS)
        except Empty:
            return Check("seen_live", passed=False)
        milliseconds = (time.monotonic() - began) * 1000
        self.console.print(
            f"  the application changes BOEING's planes; a browser on /v1/live/views/airport_planes sees "
            f"{first['key']} after {milliseconds:.0f} ms"
        )
        return Check("seen_live", "key" in first)

    async def nothing_lost(self) -> Check:
        """The relay is killed, the application goes on, the relay comes back."""
        self.console.print("  kill -9 for headwater up; the application goes on writing")
        self.up.kill()
        await self._change("AIRBUS")
        self.up.start()
        return await self.equal("nothing_lost_while_killed")

    async def changed(self) -> Check:
        """Another SELECT: noticed as stale, rebuilt from the log, verified against it."""
        self.up.stop()
        self._write("fleet_changed")
        stale = await self._stale()
        self.console.print(
            f"  fleet is {'stale' if stale else 'not stale'}: its SELECT has changed"
        )
        await self._headwater("rebuild", "fleet")
        self.up.start()
        equal = await self.equal("changed_select_rebuilt", "fleet_changed")
        verified = await self._headwater("verify", "fleet")
        return Check(equal.name, stale and equal.passed and "equal" in verified)

    async def put_back(self) -> None:
        """The table as it was, so that the demo may run again."""
        async with app.transaction() as tx:
            await tx.connection.execute(statement("put_planes_back"))

    async def _change(self, manufacturer: str) -> None:
        async with app.transaction() as tx:
            await tx.connection.execute(statement("change_planes"), {"manufacturer": manufacturer})

    async def _asked(self, select: str) -> list[tuple[str, ...]]:
        async with app.transaction() as tx:
            cursor = await tx.connection.execute(select.encode())
            names = [column.name for column in cursor.description or ()]
            rows = await cursor.fetchall()
        return sorted(_row(dict(zip(names, row, strict=True))) for row in rows)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in sorted(row))
