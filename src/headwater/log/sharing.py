"""Questions that are asked at the same time share an answer's round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

from headwater.log.tasks import ended

Q = TypeVar("Q")
A = TypeVar("A")

_WORKERS = 2


class Shared(Generic[Q, A]):
    """Whoever asks while others are answered shares the next round.

    ``answer`` takes up to ``at_once`` questions and gives an answer for each, in order; what it raises is raised
    to all who asked.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, at_once: int, name: str
    ) -> None:
        self._answer, self._at_once, self._name = answer, at_once, name
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer, by what is so after the call."""
        waiting: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, waiting))
        if len(self._tasks) < _WORKERS:
            self._tasks.add(asyncio.create_task(self._work(), name=self._name))
        return await waiting

    async def close(self) -> None:
        """Ends what answers; whoever waits is cancelled. Idempotent."""
        await ended(list(self._tasks))

    async def _work(self) -> None:
        try:
            await self._run()
        finally:
            # In the step that saw that nobody waits: a callback of the task's end comes a step later, and who
            # asks in between would count on a worker that has ended.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _run(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
            try:
                answers = await self._answer([question for question, _ in taken])
            except BaseException as error:
                for _, waiting in taken:
                    _fail(waiting, error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, waiting), answer in zip(taken, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)


def _fail(waiting: asyncio.Future[A], error: BaseException) -> None:
    if waiting.done():
        return
    if isinstance(error, Exception):
        waiting.set_exception(error)
    else:
        waiting.cancel()
