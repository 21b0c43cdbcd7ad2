"""Deciding on requests: those that come at the same time share a round trip."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.log.tasks import ended
from headwater.rates.plan import Counters, Decision, Plan, Taken, Want

_AT_ONCE = 500
_ASKING = 2
_LONGEST_KEY = 200


@dataclass(slots=True)
class _Waiting:
    key: str
    plan: Plan
    answer: asyncio.Future[Decision]


class Limiter:
    """Decides on requests by counters that processes share."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, key: str, plan: Plan) -> Decision:
        """Counts a request of a key. Raises what the counters' engine does."""
        waiting = _Waiting(_name(plan, key), plan, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if len(self._tasks) < _ASKING:
            task = asyncio.create_task(self._ask(), name="rates")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answer

    async def close(self) -> None:
        """Ends what asks. Idempotent."""
        await ended(list(self._tasks))

    async def _ask(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            by_key: dict[str, list[_Waiting]] = {}
            for one in taken:
                by_key.setdefault(one.key, []).append(one)
            groups = list(by_key.values())
            wants = [Want(group[0].key, group[0].plan, len(group)) for group in groups]
            try:
                answers = await self._counters.take(wants)
            except BaseException as error:
                _fail(taken, error)
                if not isinstance(error, Exception):
                    raise
                continue
            for group, answer in zip(groups, answers, strict=True):
                _tell(group, answer)


def _name(plan: Plan, key: str) -> str:
    """What a key is counted under: whatever callers send, it fits every engine and is nobody else's."""
    if len(key) > _LONGEST_KEY or not key.isprintable():
        told = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{plan.name} sha256 {told}"
    return f"{plan.name} {key}"


def _tell(group: Sequence[_Waiting], taken: Taken) -> None:
    """The first may go on, as many as were granted."""
    for number, one in enumerate(group):
        if not one.answer.done():
            one.answer.set_result(Decision.of(one.plan, taken, allowed=number < taken.granted))


def _fail(waiting: Sequence[_Waiting], error: BaseException) -> None:
    for one in waiting:
        if one.answer.done():
            continue
        if isinstance(error, Exception):
            one.answer.set_exception(error)
        else:
            one.answer.cancel()
