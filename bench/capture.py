"""What capture costs the application's own writes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
import time

from bench.ground import LOGIN, SQL, Figure, Ground, alternating
from headwater.capture import CaptureOptions, backfill, capture
from headwater.log.database import connect
from headwater.operations.embedded import Binaries

CLIENTS = 16
SECONDS = 4
ROWS = 100_000


def _pgbench(ground: Ground, database: str, file: str) -> float:
    command = [
        str(Binaries.from_wheel().folder / "pgbench"),
        *("-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(SECONDS), "-f", file),
        *("-h", str(ground.server.socket_folder), "-U", LOGIN, database),
    ]
    settings = {"PGOPTIONS": "-c role=headwater_app"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError(f"pgbench failed: {done.stderr}")
    return float(found[1])


async def updates(ground: Ground, rounds: int) -> list[Figure]:
    """UPDATE of one row by 16 clients, and of 100,000 rows, captured beside not captured."""
    async with ground.app() as (app, _):
        operator = app.database("headwater_operator")
        await operator.open()
        async with await connect(app.database().url, "headwater_app") as writer:
            await writer.execute(SQL["bench.captured_tables"])
            database = writer.info.dbname
            captured = await capture(operator, "captured.orders", CaptureOptions(tenant="main"))
            started = time.perf_counter()
            async for _ in backfill(operator, captured):
                pass
            backfilled = ROWS / (time.perf_counter() - started)

            async def single(script: str) -> float:
                with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
                    file.write(SQL[f"bench.pgbench_update_{script}"] + "\n")
                    file.flush()
                    return await asyncio.to_thread(_pgbench, ground, database, file.name)

            async def bulk(script: str) -> float:
                started = time.perf_counter()
                await writer.execute(SQL[f"bench.bulk_update_{script}"])
                return ROWS / (time.perf_counter() - started)

            await single("captured")
            one, one_limit = await alternating(
                rounds, lambda: single("captured"), lambda: single("plain")
            )
            await bulk("captured")
            many, many_limit = await alternating(
                rounds, lambda: bulk("captured"), lambda: bulk("plain")
            )
    return [
        Figure(f"captured UPDATE of one row, {CLIENTS} clients, against not captured", one, "rows/s", one_limit, "0.5", one >= 0.5 * one_limit),
        Figure(f"captured UPDATE of {ROWS:,} rows at once, against not captured", many, "rows/s", many_limit, "0.25", many >= 0.25 * many_limit),
        Figure(f"backfill of {ROWS:,} rows", backfilled, "rows/s"),
    ]  # fmt: skip
