"""Events sent to other people's endpoints: each is a job, created with the endpoint's position."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg

from headwater.errors import EndpointRefused, HeadwaterError
from headwater.jobs.job import Job
from headwater.jobs.outgoing.sending import NotTaken, post
from headwater.jobs.outgoing.signing import signed
from headwater.jobs.retrying import Retry
from headwater.jobs.taken import SQL, RunningJob
from headwater.log.database import Connection, Database
from headwater.log.reading import safe_position
from headwater.log.writing import enqueue

_log = logging.getLogger("headwater.jobs")
_LOOK_SECONDS = 0.2
_PENDING = 1000
_READ = 2000


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The types of events that may leave, and the job that takes one to an endpoint."""

    types: tuple[str, ...]
    deliver: Job[..., Any]


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Makes jobs of the events that follow an endpoint's position. Every process looks; the endpoint's row is locked."""

    database: Database
    webhooks: Webhooks

    async def run(self) -> None:
        """Looks for events until cancelled."""
        while True:
            try:
                made = await self.look()
            except (psycopg.Error, HeadwaterError, OSError) as error:
                made = 0
                told = str(error).partition("\n")[0]
                _log.warning("webhooks: %s: %s", type(error).__name__, told)
            await asyncio.sleep(0 if made else _LOOK_SECONDS)

    async def look(self) -> int:
        """Makes jobs for what follows; how many. An endpoint has at most about 3,000 events pending."""
        async with self.database.connection() as connection:
            safe = await safe_position(connection)
            due = await connection.execute(SQL["webhooks.due"], {"safe": safe, "most": _PENDING})
            endpoints = [row[0] for row in await due.fetchall()]
        made = 0
        for endpoint in endpoints:
            async with self.database.transaction() as connection:
                made += await self._turn(connection, endpoint, safe)
        return made

    async def _turn(self, connection: Connection, endpoint: str, safe: int) -> int:
        locked = await connection.execute(SQL["webhooks.lock"], {"endpoint": endpoint})
        row = await locked.fetchone()
        if row is None:  # another process has it, or it is parked by now
            return 0
        tenant, types, generation, position = row
        wanted = [one for one in self.webhooks.types if types is None or one in types]
        told: dict[str, Any] = {"endpoint": endpoint, "generation": generation, "tenant": tenant, "types": wanted, "after": position, "safe": safe, "most": _READ}  # fmt: skip
        # What was pending when it was parked comes first: the order of each stream is kept.
        found = await (await connection.execute(SQL["webhooks.again"], told)).fetchall()
        if not found and position < safe:
            found = await (await connection.execute(SQL["webhooks.following"], told)).fetchall()
        jobs = [
            self.webhooks.deliver(endpoint, generation, at).but(key=_key(endpoint, stream))
            for at, stream in found
        ]
        if jobs:
            await enqueue(connection, tenant, jobs, {})
        return len(jobs)


def _key(endpoint: str, stream: str) -> str:
    return f"{endpoint} {hashlib.sha256(stream.encode()).hexdigest()[:32]}"


async def deliver(
    job: RunningJob, retry: Retry, endpoint: str, generation: int, position: int
) -> str:
    """Sends one event; parks the endpoint when it was tried for the last time, or is gone for good."""
    told: dict[str, Any] = {"endpoint": endpoint, "generation": generation, "position": position}
    async with job.relay_database.connection() as connection:
        row = await (await connection.execute(SQL["webhooks.message"], told)).fetchone()
    if row is None:
        return "not sent: the endpoint is parked, was replayed, or has it"
    url, private, secret, old_secret, failing, *event = row
    body, message_id = _body(event), str(event[0])
    keys: Sequence[str] = [key for key in (secret, old_secret) if key is not None]
    headers = signed(message_id, int(time.time()), body, keys)
    try:
        await post(url, body, headers, private=private)
    except (NotTaken, EndpointRefused) as error:
        park = job.attempt >= retry.attempts or (isinstance(error, NotTaken) and error.gone)
        detail = error.message if isinstance(error, EndpointRefused) else str(error)
        detail = detail.replace("\x00", "?")[:1000]
        async with job.relay_database.connection() as connection:
            await connection.execute(SQL["webhooks.failed"], told | {"detail": detail, "park": park})  # fmt: skip
        if not park:
            raise
        return f"parked: {detail}"
    async with job.relay_database.connection() as connection:
        await connection.execute(SQL["webhooks.delivered"], told | {"failing": failing})
    return "delivered"


def _body(event: Sequence[Any]) -> bytes:
    _, kind, schema_version, stream, version, position, at, data = event
    return msgspec.json.encode(
        {
            "type": kind,
            "timestamp": at.isoformat(),
            "data": msgspec.Raw(data.encode()),
            "stream": stream,
            "version": version,
            "position": str(position),
            "schema_version": schema_version,
        }
    )
