"""An app for blocking code: Django views, Celery tasks, scripts.

The app itself stays asynchronous and runs in a thread of its own. It opens at its first use, so a
process that forks workers opens one in each.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from headwater.app import App
from headwater.errors import SettingError
from headwater.events import Event
from headwater.log import Fact, Token, Written
from headwater.log.driver import BlockingSession, BlockingWriter
from headwater.log.writing import AppendOptions
from headwater.readers.handles import D, FoldView, R, RowsView

T = TypeVar("T")


class BlockingApp:
    """Appends and reads without ``await``; safe to share between threads."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._opening = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def __enter__(self) -> Self:
        """Opens the app now instead of at its first use."""
        self._opened()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the app. Idempotent; a later use opens it again."""
        with self._opening:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None or self._process != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(self.app.__aexit__(None, None, None), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def on(self, session: BlockingSession, tenant: str | None = None) -> BlockingWriter:
        """Appends inside the transaction of a blocking connection or session; see App.on."""
        return self.app.on(session, tenant)

    def append(
        self, *events: Event | Fact, tenant: str | None = None, **options: Unpack[AppendOptions]
    ) -> Written:
        """Appends events in a commit that callers share; see App.append."""
        return self._run(self.app.append(*events, tenant=tenant, **options))

    def get(
        self,
        view: FoldView[D],
        key: object,
        *,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> D | None:
        """A fold's document; see FoldView.get."""
        return self._run(
            view.get(key, tenant=tenant, at_least=at_least, timeout_seconds=timeout_seconds)
        )

    def row(
        self,
        view: RowsView[R],
        *key: object,
        tenant: str | None = None,
        at_least: str | None = None,
        timeout_seconds: float | None = None,
    ) -> R | None:
        """A SQL view's row; see RowsView.get."""
        return self._run(
            view.get(*key, tenant=tenant, at_least=at_least, timeout_seconds=timeout_seconds)
        )

    def query(
        self,
        statement: str,
        parameters: dict[str, Any] | None = None,
        *,
        views: Sequence[FoldView[Any] | RowsView[Any]],
        tenant: str | None = None,
        at_least: Token | str | None = None,
        timeout_seconds: float | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of a SELECT over views; see App.query."""
        return self._run(
            self.app.query(
                statement,
                parameters,
                views=views,
                tenant=tenant,
                at_least=at_least,
                timeout_seconds=timeout_seconds,
            )
        )

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._opened()
        except BaseException:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting
            raise

    def _opened(self) -> asyncio.AbstractEventLoop:
        with self._opening:
            if self._loop is not None:
                if self._process != os.getpid():
                    raise SettingError(
                        "The app was opened before this process was forked.",
                        hint="Close it before forking, or use it first in the workers.",
                    )
                return self._loop
            loop = asyncio.new_event_loop()
            # A daemon: a process that forgets to close the app still ends.
            thread = threading.Thread(target=loop.run_forever, name="headwater", daemon=True)
            thread.start()
            try:
                asyncio.run_coroutine_threadsafe(self.app.__aenter__(), loop).result()
            except BaseException:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()
                raise
            self._loop, self._thread, self._process = loop, thread, os.getpid()
            return loop
