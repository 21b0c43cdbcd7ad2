"""An app with queues, that tests run in this process and in others."""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import signal
import time

from headwater import App, Document, Event, JobRate, Retry, Settings, this_job
from headwater.jobs.operating import Jobs
from headwater.log.enqueuing import Enqueue


class Ordered(Event, type="order.placed", stream="order/{order}"):
    order: str
    total: int


class Order(Document):
    total: int = 0


LOG = """CREATE TABLE IF NOT EXISTS public.effects (n bigserial, job text, key text, attempt int, note text);
GRANT ALL ON public.effects TO PUBLIC; GRANT ALL ON SEQUENCE public.effects_n_seq TO PUBLIC"""
QUICK = Retry(attempts=3, first_seconds=0.01, factor=1, jitter=0)
events: list[str] = []


def make(database, tenant="main") -> App:
    """The app over a database; what its jobs do in this process, they tell in ``events``."""
    app = App(
        "shop",
        events=[Ordered],
        tenant=tenant,
        settings=Settings(database_url=database.url, pool_size=20),
    )
    plain = app.queue("plain", workers=4)
    app.queue("mail", workers=2, weights={"urgent": math.inf, "paid": 8, "free": 1})
    app.queue("capped", workers=8, cap=2)
    app.queue("slow", workers=8, rate=JobRate(20, burst=2))
    app.queue("keyed", workers=8, key_rate=JobRate(1, per_seconds=0.05))

    @app.job(queue=plain)
    async def note(text: str, times: int = 1) -> None:
        events.extend([text] * times)

    @app.job(queue=plain)
    async def answer(value: int) -> dict[str, int]:
        await this_job().progress(0.5, "half")
        return {"twice": 2 * value}

    @app.job(queue=plain, retry=QUICK)
    async def fail(until: int, poison: bool = False) -> None:
        events.append(f"attempt {this_job().attempt}")
        if poison:
            raise KeyError("poison")
        if this_job().attempt < until:
            raise ValueError("not yet")

    @app.job(queue=plain, retry=Retry(never=(KeyError,)))
    async def refuse() -> None:
        raise KeyError("never again")

    @app.job(queue=plain)
    def threaded(text: str) -> str:
        events.append(f"{text} {this_job().tenant}")
        return text

    @app.job(queue=plain, retry=Retry(attempts=50, first_seconds=0.05, factor=1))
    async def effect(note: str) -> None:
        """Once in effect: what it does commits with its end."""
        async with this_job().transaction() as tx:
            await tx.connection.execute(
                "INSERT INTO public.effects (job, key, attempt, note) VALUES (%s, %s, %s, %s)",
                (str(this_job().id), this_job().key, this_job().attempt, note),
            )

    @app.job(queue=plain, retry=QUICK, timeout_seconds=0.05)
    async def hang() -> None:
        await asyncio.sleep(60)

    @app.job(queue=plain, retry=Retry(attempts=1))
    async def odd(how: str) -> str:
        if how == "raise":
            raise ValueError("\x00 and \ud800")
        if how == "exit":
            raise SystemExit(3)
        if how == "cancel":
            raise asyncio.CancelledError
        return "\x00"

    @app.job(queue=plain)
    async def wait() -> None:
        events.append("waiting")
        await asyncio.sleep(60)

    for name in ("mail", "capped", "slow", "keyed"):

        @app.job(queue=name, name=f"{name}_note")
        async def told(text: str, seconds: float = 0.0) -> None:
            events.append(text)
            await asyncio.sleep(seconds)
            events.append(f"end {text}")

    app.job(queue=plain, run="process")(crash)
    app.job(queue=plain, run="process")(square)

    @app.fold(key="order")
    def orders(state: Order, event: Ordered) -> Order:
        return state.but(total=state.total + event.total)

    @app.derive(orders)
    def receipts(before: Order, after: Order, event: Ordered) -> Enqueue | None:
        return note(f"receipt {event.order} {after.total}") if event.total else None

    return app


def crash(code: int = 9) -> None:
    """Kills its own process."""
    os.kill(os.getpid(), code or signal.SIGKILL)


def square(value: int) -> int:
    """Burns a little CPU."""
    return value * value


async def until(condition, *, seconds=90.0):
    """Polls a condition until it holds; the poll is the wait, so nothing rests on a guess of time."""
    deadline = time.monotonic() + seconds
    while not (value := await found if inspect.isawaitable(found := condition()) else found):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.002)
    return value


def states(app):
    return Jobs(app.database("headwater_operator"))


async def idle(app, queue="plain"):
    async def all_done():
        (state,) = [q for q in await states(app).queues() if q.queue == queue]
        return not (state.waiting or state.later or state.running) and state

    return await until(all_done)


async def _work(url: str, point: str, at_call: int) -> None:
    """Works in a process of its own, until it is killed at a point."""
    from headwater.testing.faults import die_working

    class Named:
        pass

    Named.url = url
    if point != "never":
        die_working(point, at_call=at_call)
    async with make(Named) as app, app.working(lease_seconds=0.5):
        print("working", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    asyncio.run(_work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
