"""What an app declares of notices. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec

from headwater.errors import JobDefinitionError
from headwater.jobs.notices.notice import RECORDED, Consent, Notice, Reach
from headwater.jobs.notices.telling import Reached, TemplateFailed, tell
from headwater.jobs.outgoing.channels import Channel, Message
from headwater.jobs.outgoing.definitions import PATIENT, OutgoingDefinitions
from headwater.jobs.retrying import Retry
from headwater.jobs.taken import this_job

P = ParamSpec("P")
NOTICES = "notices"


class NoticeDefinitions(OutgoingDefinitions):
    """The notices of one app, and how people are reached."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: dict[str, Notice[Any]] = {}
        self._reach: Reached | None = None

    def reach(self, function: Reached) -> Reached:
        """Declares how people are reached: an async function of a person's id gives a Reach, or None.

        It is asked when a notice is sent; addresses are in no table of Headwater. ``this_job().tenant`` is
        whose person it is.
        """
        if self._reach is not None:
            raise JobDefinitionError(
                "How people are reached is declared twice.", hint="Keep one function."
            )
        self._reach = function
        return function

    def notice(
        self,
        *,
        channels: Sequence[Channel],
        topic: str | None = None,
        consent: Consent = "opt-out",
        once: Sequence[str] = (),
        retry: Retry | None = None,
    ) -> Callable[[Callable[Concatenate[Reach, P], Message]], Notice[P]]:
        """Declares a template as a notice: ``def confirmed(to: Reach, order: str) -> Message``; ``tx.enqueue(confirmed("c-7", order="1"))``.

        A person may refuse a ``topic``, or has to choose it where ``consent`` is ``opt-in``; without a topic everyone is
        told. A notice whose parameters named by ``once`` are the same is told a person once.
        They are jobs of the queue ``notices``, of 20 workers where the app does not declare it.
        """
        self._declared(channels)
        retried = retry or PATIENT

        def declare(template: Callable[Concatenate[Reach, P], Message]) -> Notice[P]:
            notice: Notice[P] = Notice(
                template, [channel.name for channel in channels], topic, consent, once
            )

            async def telling(notice: Notice[Any], arguments: dict[str, Any]) -> str:
                return await tell(
                    notice,
                    arguments,
                    channels=self.channels,
                    reach=self._reached,
                    job=this_job(),
                    last_attempt=retried.attempts,
                )

            never = replace(retried, never=(*retried.never, TemplateFailed))
            queue = self._own_queue(NOTICES, workers=20)
            declared = self.job(queue=queue, name=f"notice.{notice.name}", retry=never)
            notice.job = declared(notice.function(telling))
            for event in RECORDED:
                self.events.add(event)
            self.notices[notice.name] = notice
            return notice

        return declare

    async def _reached(self, person: str) -> Reach | None:
        if self._reach is None:
            raise JobDefinitionError(
                f"The app {self.name!r} does not say how people are reached.",
                hint="@app.reach async def reach(person: str) -> Reach | None: ...",
            )
        return await self._reach(person)
