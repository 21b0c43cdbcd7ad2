"""A count for each stream, from an empty view to the end of a log that is there already. Events a second."""

from __future__ import annotations

import json
import time
from typing import Any

from race.work.shared import Figures, Work, document, raw_connections, run


async def headwater(url: str, work: Work) -> Figures:
    """A fold, from the start of the relay until a read with the last event's token answers."""
    from bench import shop
    from headwater import Settings

    app = shop.make(Settings(database_url=url))
    fold = app._folds["orders"]  # noqa: SLF001 - the view by its name
    async with app:
        await app.deploy()
        async with app.transaction() as tx:
            written = await tx.append(*(shop.event(n, work["streams"]) for n in range(work["events"])))  # fmt: skip
        started = time.perf_counter()
        async with app.relay("orders"):
            found = await fold.get("o0", at_least=written.token, timeout_seconds=120)
            seconds = time.perf_counter() - started
    assert found is not None
    assert found.placed == work["events"] // work["streams"]
    return {"rate": work["events"] / seconds}


async def raw(url: str, work: Work) -> Figures:
    """One INSERT of all counts by one SELECT, which no program that takes events as they come can do."""
    (connection,), statements = await raw_connections(url, 1, "events")
    await connection.execute(statements["race.counts"])
    data = [json.dumps(document(number, work["streams"])) for number in range(work["events"])]
    await connection.execute(statements["race.insert_events"], {"stream": "order", "data": data})
    started = time.perf_counter()
    await connection.execute(statements["race.insert_counts"])
    return {"rate": work["events"] / (time.perf_counter() - started)}


def eventsourcing(url: str, work: Work) -> Figures:
    """Its ``ProjectionRunner`` with a view in Postgres, which keeps the count and the position in one transaction."""
    from eventsourcing.application import Application
    from eventsourcing.projection import ProjectionRunner

    from race.work.eventsourcing_orders import Counted, Counts, Order, settings

    env = settings(url, 5)
    app: Any = Application(env=env)
    orders = [Order() for _ in range(work["streams"])]
    for number in range(work["events"]):
        orders[number % work["streams"]].place(**document(number, work["streams"]))
    last = max(recorded.notification.id for order in orders for recorded in app.save(order))
    started = time.perf_counter()
    with ProjectionRunner(application_class=Application, projection_class=Counted, view_class=Counts, env=env) as runner:  # fmt: skip
        runner.wait(last, timeout=200)
        return {"rate": work["events"] / (time.perf_counter() - started)}


if __name__ == "__main__":
    run({"headwater": headwater, "raw": raw, "eventsourcing": eventsourcing})
