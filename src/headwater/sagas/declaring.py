"""What an app declares of its sagas: ``@app.saga``. Nothing here does I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headwater.commands import Command, Decider, Deciding
from headwater.errors import SagaDefinitionError
from headwater.events import Event, EventType
from headwater.jobs.notices.declaring import NoticeDefinitions
from headwater.jobs.retrying import Retry
from headwater.jobs.taken import this_job
from headwater.log.enqueuing import Enqueue
from headwater.sagas.definition import SagaDefinition, defined
from headwater.sagas.events import RECORDED
from headwater.sagas.replaying import Function
from headwater.sagas.running import run_saga

QUEUE, RUN = "sagas", "headwater.saga"
UNTIRING = Retry(attempts=1_000_000, first_seconds=0.5, factor=2.0, longest_seconds=30.0)


class SagaDefinitions(NoticeDefinitions, ABC):
    """The sagas of one app."""

    def __init__(self) -> None:
        super().__init__()
        self.sagas: Mapping[str, SagaDefinition[Any]] = {}
        self.saga_of: dict[type[Command], SagaDefinition[Any]] = {}

    @property
    @abstractmethod
    def deciding(self) -> Deciding:
        """Runs commands."""

    @abstractmethod
    def decider(self, command: type[Command]) -> Decider[Any]:
        """Who decides on a command."""

    @abstractmethod
    async def seal_fields(self, value: Any, *, tenant: str) -> Any:
        """A value, the fields sealed that its class marks as personal."""

    @abstractmethod
    async def seal_jobs(self, *jobs: Enqueue, tenant: str) -> Sequence[Enqueue]:
        """Jobs, their personal arguments sealed."""

    def saga(
        self,
        *,
        key: str | None = None,
        on: type[Any] | Sequence[type[Any]] | None = None,
        version: int = 1,
        name: str | None = None,
        retry: Retry | None = None,
        queue: str = QUEUE,
    ) -> Callable[[Function], SagaDefinition[Any]]:
        """Declares a saga: ``async def fulfil(saga: Saga, placed: Placed) -> None``.

        It starts with each event, or command, that its second parameter is annotated with, or ``on`` says. ``key``
        names the field that names the instance: another event with the same key starts no other. Raise ``version``
        when the function changes, and keep the old one by ``@fulfil.before(1)``, for instances that began with it.
        ``retry`` is for what undoes steps. Raises SagaDefinitionError.
        """

        def declare(function: Function) -> SagaDefinition[Any]:
            definition = defined(function, on=on, name=name, key=key, version=version, queue=queue, retry=retry)  # fmt: skip
            if definition.name in self.sagas:
                raise SagaDefinitionError(
                    f"There are two sagas {definition.name!r}.", hint="Rename one."
                )
            for start in definition.starts:
                self._starts(definition, start)
            if not self.sagas:
                for event in RECORDED:
                    self.events.add(event)
            self._run_in(queue)
            self.sagas = {**self.sagas, definition.name: definition}
            return definition

        return declare

    def _starts(self, definition: SagaDefinition[Any], start: type[Event | Command]) -> None:
        if issubclass(start, Event):
            self.events.named(EventType.of(start).name)
        elif (other := self.saga_of.setdefault(start, definition)) is not definition:
            raise SagaDefinitionError(
                f"{other.name!r} and {definition.name!r} both start with {start.__name__}.",
                hint="One saga starts with a command; make it two commands, or an event.",
            )

    def _run_in(self, queue: str) -> None:
        """Declares the queue, and the job that runs instances."""
        where = self._own_queue(queue, workers=50)
        if RUN in self.jobs:
            return

        @self.job(queue=where, name=RUN, retry=UNTIRING)
        async def running(saga: str, instance: str, timer: bool = False) -> None:
            await run_saga(self, this_job(), saga, instance, timer=timer)
