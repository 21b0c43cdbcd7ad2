"""Appends made outside a caller's transaction share commits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.errors import DeadlockDetected

from headwater import errors
from headwater.errors import HeadwaterError
from headwater.log.database import Database
from headwater.log.failures import passing, refusal, translate, translated
from headwater.log.tasks import ended
from headwater.log.tokens import Token
from headwater.log.writing import Appended, Group, Written, append_group, append_groups

_CIRCLE_PAUSES = (0.01, 0.05, 0.2)
_COMMIT_EVENTS = 2_000
_COMMIT_GROUPS = 500


@dataclass(slots=True)
class _Waiting:
    group: Group
    answer: asyncio.Future[Written]


class SharedCommits:
    """Coalesces appends made outside a caller's transaction.

    Callers that come while a commit is under way share the next one. Each is answered after its own events are durable, and one
    caller's refusal never fails another's.
    """

    def __init__(self, database: Database, *, writers: int = 2) -> None:
        self._database = database
        self._writers = writers
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the writers. Idempotent."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run()) for _ in range(self._writers)]

    async def stop(self) -> None:
        """Writes what is waiting, then stops. Idempotent."""
        while self._waiting:
            self._wake.set()
            await asyncio.wait([w.answer for w in self._waiting])
        await ended(self._tasks)
        self._tasks = []

    async def append(self, group: Group) -> Written:
        """Appends a group in a shared commit. Raises AppendRefused or DatabaseUnavailable."""
        if len(group) > _COMMIT_EVENTS:
            async with self._database.transaction() as connection:
                with translated():
                    return await append_group(connection, group)
        waiting = _Waiting(group, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return await waiting.answer

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                if not self._waiting:  # else all that were taken had given up
                    self._wake.clear()
                continue
            try:
                await self._commit(batch)
            except Exception as error:  # noqa: BLE001 - a writer that ended would leave all callers waiting
                await self._one_by_one(batch, error)

    def _take(self) -> list[_Waiting]:
        taken, events = 0, 0
        for waiting in self._waiting[:_COMMIT_GROUPS]:
            if taken and events + len(waiting.group) > _COMMIT_EVENTS:
                break
            taken += 1
            events += len(waiting.group)
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return [waiting for waiting in batch if not waiting.answer.cancelled()]

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        # Tenants in sorted order, as streams are within one: two writers never wait for each other.
        by_tenant: dict[str, list[_Waiting]] = {}
        for waiting in batch:
            by_tenant.setdefault(waiting.group.tenant, []).append(waiting)
        answers: list[tuple[_Waiting, Written | HeadwaterError]] = []
        async with self._database.connection() as connection:
            if len(by_tenant) == 1:  # one statement is a transaction of its own
                answers = _answers(batch, await append_groups(connection, [w.group for w in batch]))
            else:
                async with connection.transaction():
                    for _, group in sorted(by_tenant.items()):
                        answers += _answers(
                            group, await append_groups(connection, [w.group for w in group])
                        )
        for waiting, answer in answers:
            _resolve(waiting, answer)

    async def _one_by_one(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """A failure of the whole statement: the caller at fault is found by asking singly."""
        # Who is ended to part a circle of waiting has left nothing behind, and goes again.
        again = isinstance(error, DeadlockDetected)
        lost = isinstance(error, errors.DatabaseUnavailable) or (
            isinstance(error, psycopg.Error) and passing(error) and not again
        )
        for waiting in batch:
            if lost or (len(batch) == 1 and not again):
                _resolve(waiting, _as_refusal(error))
                continue
            try:
                await self._commit_alone(waiting)
            except Exception as own:  # noqa: BLE001 - it is the caller's
                _resolve(waiting, _as_refusal(own))

    async def _commit_alone(self, waiting: _Waiting) -> None:
        """Goes again where it was ended: whoever it waited for may not have got what it wanted yet."""
        for pause in _CIRCLE_PAUSES:
            try:
                return await self._commit([waiting])
            except DeadlockDetected:
                await asyncio.sleep(pause)
        return await self._commit([waiting])


def _as_refusal(error: Exception) -> Exception:
    if isinstance(error, UnicodeError):
        return errors.InvalidEvent(
            "The tenant or the idempotency key is no Unicode text.", hint="Nothing was appended."
        )
    if not isinstance(error, psycopg.Error):
        return error
    return translate(error) or errors.AppendRefused(
        f"Postgres refused the append: {error.diag.message_primary}.",
        hint=f"SQLSTATE {error.sqlstate}; nothing was appended.",
    )


def _resolve(waiting: _Waiting, answer: Written | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)


def _answers(
    batch: Sequence[_Waiting], appended: Appended
) -> list[tuple[_Waiting, Written | HeadwaterError]]:
    """Each caller's share of what one statement appended."""
    outcomes = {outcome["g"]: outcome for outcome in appended.outcomes}
    log_epoch = appended.token.rpartition(".")[0]
    answers: list[tuple[_Waiting, Written | HeadwaterError]] = []
    start = 0
    for number, waiting in enumerate(batch):
        outcome = outcomes.get(number)
        if outcome is not None and outcome.get("refusal") is not None:
            answers.append((waiting, refusal(outcome)))
            continue
        if outcome is not None:
            positions, versions = outcome["positions"], outcome["versions"]
        else:
            end = start + len(waiting.group)
            positions, versions = appended.positions[start:end], appended.versions[start:end]
            start = end
        token = Token(f"{log_epoch}.{positions[-1]}")
        answers.append((waiting, Written(token, positions, versions, outcome is not None)))
    return answers
