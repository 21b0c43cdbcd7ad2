"""``make bench``: measures, prints a table and writes build/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import (
    apis,
    appends,
    bus,
    capture,
    clickhouse,
    commands,
    failover,
    http,
    jobs,
    personal,
    rebuilds,
    rollups,
    sagas,
    stores,
    views,
)
from bench.ground import Figure, Ground, ground


def parts(rounds: int, size: int) -> dict[str, Callable[[Ground], Awaitable[list[Figure]]]]:
    """What can be measured, by name."""
    return {
        "singles": lambda g: appends.singles(g, rounds),
        "pgbench": lambda g: appends.by_pgbench(g, rounds),
        "bulk": lambda g: appends.bulk(g, rounds),
        "latency": views.read_your_writes,
        "catching_up": lambda g: views.catching_up(g, rounds),
        "rebuilds": lambda g: rebuilds.rebuilding(g, rounds),
        "rollups": lambda g: rollups.by_minute(g, rounds),
        "stores": lambda g: stores.catching_up(g, rounds),
        "clickhouse": lambda g: clickhouse.catching_up(g, rounds),
        "capture": lambda g: capture.updates(g, rounds),
        "commands": lambda g: commands.commands(g, rounds),
        "snapshots": lambda g: commands.long_streams(g, rounds),
        "personal": lambda g: personal.personal(g, rounds),
        "limits": lambda g: apis.limits(g, rounds),
        "once": lambda g: apis.once(g, rounds),
        "http": lambda g: http.everything(g, rounds),
        "live": http.live,
        "jobs": jobs.jobs,
        "sagas": sagas.sagas,
        "failover": lambda _: failover.failover(rounds),
        "bus": bus.bus,
        "size": lambda g: appends.at_size(g, size),
    }


async def measure(chosen: list[str], rounds: int, size: int) -> list[Figure]:
    """Measures the parts one after the other."""
    place = ground(Path("build/bench/postgres"))
    figures: list[Figure] = []
    place.server.start()
    try:
        for name, part in parts(rounds, size).items():
            if not chosen or name in chosen:
                started = time.perf_counter()
                figures += await part(place)
                print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    finally:
        place.server.stop()
    return figures


def main() -> None:
    """Parses the command line, measures, reports."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("part", nargs="*", help=f"only these: {', '.join(parts(0, 0))}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, alternating")
    parser.add_argument("--size", type=int, default=10_000_000, help="events of the large log")
    options = parser.parse_args()
    if unknown := sorted(set(options.part) - parts(0, 0).keys()):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(parts(0, 0))}")
    figures = asyncio.run(measure(options.part, options.rounds, options.size))
    table = Table(title="make bench", title_justify="left")
    for column in ("figure", "reached", "limit", "ratio", "aim", "met"):
        table.add_column(column, justify="left" if column in {"figure", "aim", "met"} else "right")
    for f in figures:
        limit = "" if f.limit is None else f"{f.limit:,.0f}"
        ratio = "" if f.ratio is None else f"{f.ratio:.2f}"
        reached = f"{f.reached:,.1f} {f.unit}" if f.unit == "ms" else f"{f.reached:,.0f} {f.unit}"
        table.add_row(
            f.name, reached, limit, ratio, f.aim, "" if f.met is None else "yes" if f.met else "no"
        )
    Console(width=150).print(table)
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    result = {"machine": machine, "figures": [vars(f) | {"ratio": f.ratio} for f in figures]}
    Path("build").mkdir(exist_ok=True)
    Path("build/bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))


main()
