"""The event loop that a saga's function runs in: nothing but steps, in an order that a replay repeats.

It runs what is ready until nothing is, in one go, within the process's own loop. There are no clocks, sockets or
threads in it: whatever the function waits for that is not a step is refused, since a replay would not meet it again.
Tasks, gather, TaskGroup and queues of asyncio work as ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn, TypeVar

from headwater.errors import NotDeterministic

T = TypeVar("T")


class StepLoop(asyncio.AbstractEventLoop):
    """Runs one saga's function between its steps."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []

    def turn(self) -> None:
        """Runs until everything waits."""
        # The process's loop stands still meanwhile; its task does too.
        around = asyncio._get_running_loop()  # noqa: SLF001 - part of asyncio.events for those who write loops
        asyncio._set_running_loop(self)  # noqa: SLF001
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - as every loop runs its handles
        finally:
            asyncio._set_running_loop(around)  # noqa: SLF001

    def dismiss(self) -> None:
        """Ends what still waits, without a word of it."""
        for task in self._tasks:
            task.cancel()
        self.turn()
        for task in self._tasks:
            if task.done():
                if not task.cancelled():
                    task.exception()
            else:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        self._tasks.clear()

    # What tasks and futures ask of a loop --------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Runs it in this turn, or the next."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """A task of this loop."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def get_task_factory(self) -> None:
        """None: tasks are plain."""

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """As far as tasks can tell."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: what a function raises is its outcome."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing."""

    # What is refused -----------------------------------------------------------------------------

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotDeterministic(
            "The function of a saga waits for something that is not a step: a clock, a thread or a connection.",
            hint="Use await saga.sleep(...) or saga.wait(..., timeout_seconds=...), and saga.call(...) for what is outside.",
        )

    call_later = call_at = call_soon_threadsafe = run_in_executor = _refuse  # type: ignore[assignment]
    create_connection = create_server = create_datagram_endpoint = getaddrinfo = _refuse
    subprocess_exec = subprocess_shell = add_reader = add_writer = _refuse  # type: ignore[assignment]
    sock_recv = sock_recv_into = sock_sendall = sock_connect = sock_accept = _refuse

    def time(self) -> NoReturn:
        """Refused: a replay has another time."""
        self._refuse()
