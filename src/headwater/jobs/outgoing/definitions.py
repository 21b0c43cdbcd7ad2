"""What an app declares of what it tells the outside: alerts and their channels, webhooks. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from headwater.errors import JobDefinitionError
from headwater.events import Event, EventType
from headwater.jobs.alerts.rule import (
    NAME,
    Alert,
    AlertRaised,
    AlertResolved,
    Condition,
)
from headwater.jobs.alerts.telling import digest, message_of
from headwater.jobs.declaring import JobDefinitions
from headwater.jobs.outgoing.channels import Channel
from headwater.jobs.outgoing.webhooks import Webhooks, deliver
from headwater.jobs.queue import Queue
from headwater.jobs.retrying import Retry
from headwater.jobs.schedule import Schedule
from headwater.jobs.taken import this_job
from headwater.log.enqueuing import Enqueue

C = TypeVar("C", bound=Channel)

ALERTS, WEBHOOKS = "alerts", "webhooks"
TELL, DIGEST, DELIVER = "headwater.tell", "headwater.digest", "headwater.deliver"
PATIENT = Retry(attempts=12, first_seconds=5.0, longest_seconds=3600.0)
"""Tried for about five hours."""


class OutgoingDefinitions(JobDefinitions):
    """The channels, alerts and webhooks of one app."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: dict[str, Channel] = {}
        self.alerts: dict[str, Alert] = {}
        self.outgoing: Webhooks | None = None

    def channel(self, channel: C) -> C:
        """Declares a way to tell people: Slack, Webhook, Mail, or one of your own; see Channel. Raises JobDefinitionError."""
        if not NAME.fullmatch(channel.name) or channel.name in self.channels:
            raise JobDefinitionError(
                f"The channel's name {channel.name!r} is taken or malformed.",
                hint="Use up to 63 lower-case letters, digits, _ and -, a letter first.",
            )
        self.channels[channel.name] = channel
        return channel

    def alert(
        self,
        name: str,
        when: Condition,
        *,
        to: Sequence[Channel],
        for_seconds: float = 0.0,
        tenant: str | None = None,
    ) -> Alert:
        """Declares an alert: raised once ``when`` has held for ``for_seconds``, resolved when it holds no more.

        Both are events of the tenant, ``alert.raised`` and ``alert.resolved``, and told to the channels.
        """
        whose = tenant if tenant is not None else getattr(self, "tenant", None)
        if not NAME.fullmatch(name) or name in self.alerts or whose is None:
            raise JobDefinitionError(
                f"The alert's name {name!r} is taken or malformed, or it has no tenant.",
                hint="Use up to 63 lower-case letters, digits, _ and -; pass tenant=... where the app has several.",
            )
        self._telling(to)
        for event in (AlertRaised, AlertResolved):
            self.events.add(event)
        names = tuple(channel.name for channel in to)
        self.alerts[name] = Alert(name, when, for_seconds, names, whose)
        return self.alerts[name]

    def digest(
        self,
        *,
        to: Sequence[Channel],
        cron: str = "0 8 * * MON",
        zone: str = "UTC",
        tenant: str | None = None,
    ) -> Schedule:
        """Tells channels once a week how often schedules ran and failed, alerts were raised, and jobs failed."""
        self._telling(to)
        names = [channel.name for channel in to]
        wanted = self.jobs[DIGEST](channels=names)
        return self.schedule("digest", wanted, cron=cron, zone=zone, tenant=tenant)

    def told(self, channel: str, alert: str, state: str, detail: str) -> Enqueue:
        """The job that tells a channel of an alert."""
        return self.jobs[TELL](channel=channel, name=alert, kind=state, detail=detail[:4000])

    def _declared(self, channels: Sequence[Channel]) -> None:
        for channel in channels:
            if self.channels.get(channel.name) is not channel:
                raise JobDefinitionError(
                    f"The app has no channel {channel.name!r}.",
                    hint="Declare it with app.channel.",
                )

    def _telling(self, to: Sequence[Channel]) -> None:
        """Checks the channels, and declares the jobs that tell them."""
        self._declared(to)
        for channel in to:
            if channel.addressed:
                raise JobDefinitionError(
                    f"The channel {channel.name!r} does not say whom it tells of alerts.",
                    hint='Give it addresses: Mail(..., to=["ops@example.com"]).',
                )
        if TELL in self.jobs:
            return
        queue = self._own_queue(ALERTS, workers=2)

        @self.job(queue=queue, name=TELL, retry=PATIENT)
        async def telling(channel: str, name: str, kind: str, detail: str) -> None:
            if (found := self.channels.get(channel)) is not None:
                message = message_of(kind, name, detail)
                await found.send(message, message_id=f"job-{this_job().id}-{channel}")

        @self.job(queue=queue, name=DIGEST)
        async def digesting(channels: list[str]) -> None:
            text = await digest(this_job().relay_database)
            async with this_job().transaction() as tx:
                wanted = [self.told(one, "digest", "digest", text) for one in channels]
                await tx.enqueue(*wanted)

    # Webhooks ------------------------------------------------------------------------------------

    def webhooks(
        self, types: Sequence[type[Event]], *, workers: int = 20, retry: Retry | None = None
    ) -> Webhooks:
        """Lets events of these types leave for endpoints that operators register: ``headwater webhooks``.

        Each event is one job: in order per stream, tried again by ``retry``; then the endpoint is parked.
        """
        if self.outgoing is not None or not types:
            raise JobDefinitionError(
                "The types of events that leave are declared twice, or there are none.",
                hint="Call app.webhooks([...]) once.",
            )
        names = [EventType.of(event).name for event in types]
        for name in names:
            self.events.named(name)
        patient = retry or PATIENT
        queue = self._own_queue(WEBHOOKS, workers=workers)

        @self.job(queue=queue, name=DELIVER, retry=patient)
        async def delivering(endpoint: str, generation: int, position: int) -> None:
            await deliver(this_job(), patient, endpoint, generation, position)

        self.outgoing = Webhooks(tuple(names), self.jobs[DELIVER])
        return self.outgoing

    def _own_queue(self, name: str, workers: int) -> Queue:
        found = self.queues.get(name)
        return self.queue(name, workers=workers) if found is None else found
