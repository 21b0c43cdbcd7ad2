"""What a notice is: a typed template for one person, its channels, and the facts of what became of it. Pure."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, Literal, ParamSpec, get_type_hints

import msgspec

from headwater.errors import JobDefinitionError, JobRefused
from headwater.events import Event
from headwater.events.personal import personal_marks
from headwater.jobs.job import Job
from headwater.jobs.outgoing.channels import Message
from headwater.log.enqueuing import Enqueue

P = ParamSpec("P")
_PERSON = re.compile(r"[^\x00-\x20\x7f]{1,200}")
Consent = Literal["opt-out", "opt-in"]


class NoticePreferred(Event, type="notice.preferred", stream="notice-preferences/{person}"):
    """By which channels a person wants notices of a topic, by their names; none refuses the topic. The last one holds."""

    person: str
    topic: str
    channels: list[str]


class NoticeSent(Event, type="notice.sent", stream="notice/{id}"):
    """A channel has taken a notice."""

    id: str
    notice: str
    person: str
    channel: str


class NoticeWithheld(Event, type="notice.withheld", stream="notice/{id}"):
    """A notice was not sent by a channel, and will not be: ``reason`` says why."""

    id: str
    notice: str
    person: str
    channel: str
    reason: str


class NoticeFailed(Event, type="notice.failed", stream="notice/{id}"):
    """A channel did not take a notice, and it is not tried again by itself."""

    id: str
    notice: str
    person: str
    channel: str
    reason: str


RECORDED: tuple[type[Event], ...] = (NoticePreferred, NoticeSent, NoticeWithheld, NoticeFailed)


@dataclass(frozen=True, slots=True)
class Reach:
    """How a person is reached now: an address by each channel's name, a name, a language (``de``, ``de-AT``), and what else templates need."""

    addresses: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    locale: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Notice(Generic[P]):
    """A template as a job. Called with a person and the template's arguments, it makes what ``enqueue`` takes."""

    def __init__(
        self,
        template: Callable[Concatenate[Reach, P], Message],
        channels: Sequence[str],
        topic: str | None,
        consent: Consent,
        once: Sequence[str],
    ) -> None:
        self.template = template
        self.name = template.__name__
        self.channels = tuple(channels)
        self.topic = topic
        self.consent = consent
        self.once = tuple(once)
        self.job: Job[..., Any] | None = None
        self.__doc__ = template.__doc__
        if topic is None and consent == "opt-in":
            raise JobDefinitionError(
                f"The notice {self.name!r} asks for consent, and has no topic to consent to.",
                hint='Give it one: topic="offers".',
            )

    def __call__(self, person: str, *args: P.args, **kwargs: P.kwargs) -> Enqueue:
        """The notice to a person, for ``enqueue``. Raises JobRefused where the arguments do not fit."""
        assert self.job is not None
        if not _PERSON.fullmatch(person):
            raise JobRefused(
                "A person is named by something that is no id.",
                hint="Use up to 200 characters without spaces; how they are reached is said by app.reach.",
            )
        made = self.job(person, *args, **kwargs)
        if not self.once:
            return made
        # Jobs of one key run one after the other, so that the second finds what the first has told.
        return made.but(
            key=f"notice {self.id_of(self.job.decode(bytes(made.arguments).decode()), 0)}"
        )

    def id_of(self, arguments: Mapping[str, Any], job_id: int) -> str:
        """What names the notice in the log: the same for all that are to be told once."""
        if not self.once:
            return f"{self.name}-{job_id}"
        told = [self.name, arguments["person"], *(arguments[one] for one in self.once)]
        return hashlib.sha256(_encoder.encode(told)).hexdigest()[:32]

    def function(self, tell: Callable[..., Any]) -> Callable[..., Any]:
        """What the job runs: ``tell`` with a person and the template's arguments, which it shows as its own."""
        hints = get_type_hints(self.template, include_extras=True)  # what is personal stays so
        first, *parameters = inspect.signature(self.template).parameters.values()
        if hints.get(first.name) is not Reach or hints.get("return") is not Message:
            raise JobDefinitionError(
                f"The notice {self.name!r} does not take a Reach first and return a Message.",
                hint=f"def {self.name}(to: Reach, ...) -> Message",
            )
        if unknown := set(self.once) - {one.name for one in parameters}:
            raise JobDefinitionError(
                f"The notice {self.name!r} is to be told once for each {', '.join(sorted(unknown))}, which it does not take.",
                hint="Name parameters of the template.",
            )
        if personal := set(self.once) & personal_marks(self.template).keys():
            raise JobDefinitionError(
                f"The notice {self.name!r} would be named in the log by {', '.join(sorted(personal))}, which is personal.",
                hint="Let it be told once for each of something else, such as the order.",
            )
        person = inspect.Parameter("person", inspect.Parameter.POSITIONAL_OR_KEYWORD)

        async def telling(**arguments: Any) -> Any:
            return await tell(self, arguments)

        telling.__signature__ = inspect.Signature([person, *parameters])  # type: ignore[attr-defined]
        telling.__annotations__ = {"person": str} | {one.name: hints.get(one.name, Any) for one in parameters}  # fmt: skip
        telling.__doc__ = self.template.__doc__
        return telling


_encoder = msgspec.json.Encoder(decimal_format="string")
