"""Tells a person: asks how they are reached and what they want, sends by each channel, and records what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from headwater.errors import EndpointRefused
from headwater.events import Event, EventTypes
from headwater.jobs.notices.notice import (
    RECORDED,
    Notice,
    NoticeFailed,
    NoticePreferred,
    NoticeSent,
    NoticeWithheld,
    Reach,
)
from headwater.jobs.outgoing.channels import Channel, Message
from headwater.jobs.outgoing.sending import NotTaken
from headwater.jobs.taken import RunningJob
from headwater.log.failures import translated
from headwater.log.reading import LogReader
from headwater.log.writing import Writer

Reached = Callable[[str], Awaitable[Reach | None]]
"""Says how a person is reached, or None: not at all."""

_TYPES = EventTypes(RECORDED)
_PAGE = 500


class NotTold(Exception):
    """Some channel did not take the notice. It is tried again."""


class TemplateFailed(Exception):
    """The template raised: trying again does not help."""


async def tell(
    notice: Notice[Any],
    arguments: Mapping[str, Any],
    *,
    channels: Mapping[str, Channel],
    reach: Reached,
    job: RunningJob,
    last_attempt: int,
) -> str:
    """Sends a notice by each channel that has not had it; what became of it. Raises NotTold and TemplateFailed."""
    telling = Telling(notice, dict(arguments), job)
    settled = await telling.settled()
    due = [channels[name] for name in notice.channels if name not in settled]
    if not due:
        return "it was told before"
    person = await reach(telling.person)
    wanted = await telling.wanted()
    open_channels = []
    for channel in due:
        reason = _withheld(notice, channel, person, wanted)
        if reason is None:
            open_channels.append(channel)
        else:
            await telling.note(NoticeWithheld(*telling.named(channel), reason))
    if person is None or not open_channels:
        return "withheld"
    message = telling.message(person)
    outcomes = await asyncio.gather(
        *(telling.send(channel, message, person) for channel in open_channels)
    )
    again: list[str] = []
    for channel, outcome in zip(open_channels, outcomes, strict=True):
        if outcome is None:
            continue
        reason, gone = outcome
        if not gone:
            again.append(f"{channel.name}: {reason}")
        if gone or job.attempt >= last_attempt:
            await telling.note(NoticeFailed(*telling.named(channel), reason))
    if again:
        raise NotTold("; ".join(again))
    return "told"


def _withheld(
    notice: Notice[Any], channel: Channel, person: Reach | None, wanted: list[str] | None
) -> str | None:
    """Why a person is not told by a channel."""
    if person is None:
        return "nobody knows how to reach the person"
    if wanted is None and notice.consent == "opt-in":
        return f"the person has not chosen notices about {notice.topic}"
    if wanted is not None and channel.name not in wanted:
        return f"the person does not want notices about {notice.topic} by it"
    if channel.addressed and not person.addresses.get(channel.name):
        return "the person has no address for it"
    return None


class Telling:
    """One notice to one person, while its job runs."""

    def __init__(self, notice: Notice[Any], arguments: dict[str, Any], job: RunningJob) -> None:
        self.notice = notice
        self.id = notice.id_of(arguments, job.id)
        self.person: str = arguments.pop("person")
        self._arguments = arguments
        self._job = job
        self._log = LogReader(job.app_database, _TYPES)

    def named(self, channel: Channel) -> tuple[str, str, str, str]:
        """The fields that say which notice an event is about."""
        return self.id, self.notice.name, self.person, channel.name

    async def settled(self) -> set[str]:
        """The channels that took it, or by which it was withheld."""
        found = await self._log.stream(f"notice/{self.id}", tenant=self._job.tenant)
        return {
            one.event.channel for one in found if isinstance(one.event, NoticeSent | NoticeWithheld)
        }

    async def wanted(self) -> list[str] | None:
        """The channels by which the person wants the topic; None where they have not said."""
        if self.notice.topic is None:
            return None
        after, wanted = 0, None
        while True:
            found = await self._log.stream(f"notice-preferences/{self.person}", tenant=self._job.tenant, after_version=after, max_rows=_PAGE)  # fmt: skip
            for one in found:
                event = one.event
                if isinstance(event, NoticePreferred) and event.topic == self.notice.topic:
                    wanted = event.channels
            if len(found) < _PAGE:
                return wanted
            after = found[-1].version

    def message(self, person: Reach) -> Message:
        """What the template says. Raises TemplateFailed."""
        try:
            made = self.notice.template(person, **self._arguments)
        except Exception as error:
            reason = f"the template {self.notice.name!r} raised {type(error).__name__}: {error}"
            for address in person.addresses.values():
                reason = _without(reason, address)
            raise TemplateFailed(reason) from error
        if made.kind != "notice" or made.data:
            return made
        told = {"notice": self.notice.name, "person": self.person, **self._arguments}
        return Message(made.subject, made.text, made.html, made.kind, told, made.unsubscribe)

    async def send(
        self, channel: Channel, message: Message, person: Reach
    ) -> tuple[str, bool] | None:
        """Sends by a channel and records it; None, or why it was not taken and whether that is for good."""
        address = person.addresses.get(channel.name)
        try:
            await channel.send(message, message_id=f"{self.id}-{channel.name}", to=address)
        except NotTaken as error:
            return _without(str(error), address), error.gone
        except EndpointRefused as error:
            return error.message, False
        except Exception as error:  # noqa: BLE001 - a channel may be the app's own
            return _without(f"{type(error).__name__}: {error}", address), False
        await self.note(NoticeSent(*self.named(channel)))
        return None

    async def note(self, event: Event) -> None:
        """Records what became of it."""
        tenant = self._job.tenant
        async with self._job.app_database.transaction(tenant) as connection:
            with translated():
                await Writer(connection, tenant).append(event)


def _without(text: str, address: str | None) -> str:
    """A reason that does not hold the person's address."""
    told = text if not address else text.replace(address, "the address")
    return told.replace("\x00", "?")[:1000]
