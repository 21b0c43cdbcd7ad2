"""Jobs and sagas with a person's data: their arguments, results and records hold sealed text."""

from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from jobs_shop import idle, states, until
from msgspec import Struct
from starlette.responses import Response
from test_opening import ADA, BOB, Signed, folder_of, holding, make

from headwater import Command, Retry, Saga
from headwater.entrances.asgi import Idempotency, Once
from headwater.errors import JobDefinitionError, JobRefused
from headwater.events import Personal
from headwater.events.personal import is_sealed
from headwater.personal import FORGOTTEN

pytestmark = pytest.mark.postgres
QUICK = Retry(attempts=2, first_seconds=0.01, factor=1, jitter=0)


class Welcome(Command):
    customer: str
    mail: Annotated[str, Personal("customer")]


class Receipt(Struct):
    customer: str
    mail: Annotated[str, Personal("customer")]
    number: int = 1


def declare(app):
    told: list[str] = []
    mails = app.queue("mails")

    @app.job(queue=mails, retry=QUICK)
    async def write(
        customer: str, mail: Annotated[str, Personal("customer")], fail: bool = False
    ) -> str:
        told.append(mail)
        if fail:
            raise ValueError(f"no such address: {mail}")
        return f"written to {mail}"

    async def greet(command: Welcome, key: str) -> Receipt:
        opened = await app.open_sealed(command)
        told.append(opened.mail)
        return Receipt(command.customer, opened.mail)

    @app.saga(key="customer")
    async def welcome(saga: Saga, command: Welcome) -> None:
        receipt = await saga.call(greet, command)
        told.append(receipt.mail)

    return told, write


async def test_what_jobs_keep_of_a_person_is_sealed_and_not_run_once_they_are_forgotten(
    database, tmp_path
):
    app = make(database, tmp_path)
    told, write = declare(app)
    async with app:
        await app.deploy()
        first = await app.enqueue(write("1", ADA))
        async with app.transaction() as tx:
            second = await tx.enqueue(write("2", BOB, fail=True))
        with pytest.raises(JobRefused, match="personal argument 'mail'"):
            async with app.database().transaction("main") as connection:
                await app.on(connection).enqueue(write("3", ADA))
        async with app.database().transaction("main") as connection:
            await app.on(connection).enqueue(*await app.seal_jobs(write("2", BOB)))
        async with app.working():
            await idle(app, "mails")
        assert sorted(told) == sorted([ADA, BOB, BOB, BOB])
        done, dead = [await states(app).show(one.id) for one in (first, second)]
        assert (done.state, done.result) == ("done", None)
        assert dead.state == "dead"
        assert "ValueError, in a job with personal arguments" in dead.failures[0]["reason"]
        assert BOB not in str(dead)
        waiting = await app.enqueue(write("1", ADA).but(delay_seconds=0.5), write("2", BOB))
        assert (await (await app.forgetting()).forget("1", "main")).holds
        told.clear()
        async with app.working():
            await idle(app, "mails")
        assert told == [BOB]
        ended = await states(app).show(waiting.ids[0])
        assert ended.state == "cancelled"
        with database.admin() as admin:
            tables = [
                t
                for (t,) in admin.execute(
                    "SELECT tablename FROM pg_tables WHERE schemaname = 'headwater'"
                )
            ]
            for table in tables:
                rows = admin.execute(f"SELECT t::text FROM headwater.{table} AS t").fetchall()
                assert not [row for row in rows if ADA in row[0] or BOB in row[0]], table


async def test_what_a_saga_records_of_a_person_is_sealed(database18, tmp_path):
    app = make(database18, tmp_path)
    told, _ = declare(app)
    async with app:
        await app.deploy()
        async with app.relay(), app.working():
            await app.do(Welcome("1", ADA))

            async def done():
                found = await app.sagas_now.instances(ended=True)
                return next((s for s in found if s.state == "done"), None)

            await until(done)
        assert told[0] == ADA
        assert is_sealed(told[1])
        with database18.admin() as admin:
            events = [e for (e,) in admin.execute("SELECT data::text FROM headwater.events")]
        assert len(events) >= 3
        assert not [event for event in events if ADA in event]
        assert (await (await app.forgetting()).forget("1", "main")).holds
        assert await app.open_sealed(told[1]) == FORGOTTEN


def test_what_cannot_be_a_personal_argument_is_refused(tmp_path):
    from headwater import App

    app = App("people", events=[Signed])
    queue = app.queue("mails")
    with pytest.raises(JobDefinitionError, match="is not text"):

        @app.job(queue=queue)
        async def number(customer: str, age: Annotated[int, Personal("customer")]) -> None: ...

    with pytest.raises(JobDefinitionError, match="no argument that names a person"):

        @app.job(queue=queue)
        async def nobody(mail: Annotated[str, Personal("customer")]) -> None: ...


async def test_a_kept_answer_that_tells_of_somebody_is_another_once_they_are_forgotten(
    database18, tmp_path
):
    app = make(database18, tmp_path)
    api = FastAPI()
    once = Idempotency("main")

    @api.post("/people/{customer}")
    async def sign(customer: str, mail: str, once: Annotated[Once, Depends(once)]) -> Response:
        async with app.transaction() as tx:
            if (first := await once.claim(tx.connection)) is not None:
                return first
            await tx.append(Signed(customer, mail))
            return await once.settle(tx.connection, {"signed": mail})

    async with (
        app,
        httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://x") as client,
    ):
        await app.deploy()

        async def post(customer, mail):
            sent = await client.post(
                f"/people/{customer}?mail={mail}", headers={"Idempotency-Key": customer}
            )
            return sent.status_code, sent.json()

        for _ in range(2):
            assert await post("1", ADA) == (200, {"signed": ADA})
            assert await post("2", BOB) == (200, {"signed": BOB})
        certificate = await (await app.forgetting()).forget("1", "main")
        assert certificate.holds
        assert [
            (f.purged, f.left, f.note) for f in certificate.places if f.where == "kept answers"
        ] == [(1, 0, "")]
        status, told = await post("1", ADA)
        assert (status, told["code"]) == (410, "subject_forgotten")
        assert await post("2", BOB) == (200, {"signed": BOB})
        with database18.admin() as admin:
            admin.execute("VACUUM")
            admin.execute("CHECKPOINT")
        folder = folder_of(database18)
        assert holding(folder, ADA) == []
        assert holding(folder, BOB)
