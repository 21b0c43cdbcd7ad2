"""What a batch of arrivals comes to: what is appended, parked or passed by, and where the inbox is then. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from headwater.errors import SourceChanged
from headwater.receiving.inbox import UNKNOWN, Inbox, Place, Told
from headwater.views.messages import Kept, Progress

FOLLOWS = "an earlier message of this stream is parked"


@dataclass(frozen=True, slots=True)
class Standpoint:
    """How far an inbox is: in which history of the source, and where in the bus's stream.

    ``position`` is that of the last message taken; up to ``upto`` nothing of the source is missing.
    """

    log: str | None
    epoch: int | None
    position: int
    upto: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Parking:
    """A message to set aside."""

    kept: Kept
    place: Place
    reason: str
    culprit: bool


@dataclass(slots=True)
class Taking:
    """Takes in arrivals, in order. ``own`` is the log that they go to, ``waiting`` are the streams of which something is parked."""

    inbox: Inbox
    own: str
    at: Standpoint
    waiting: set[Place]
    announced: Progress | None = None
    due: list[tuple[Kept, Told]] = field(default_factory=list)
    parked: list[Parking] = field(default_factory=list)
    change: SourceChanged | None = None

    def take(self, arrivals: Iterable[Kept | Progress]) -> None:
        """Takes all, or those before the first that does not follow on what was received: then ``change`` says why."""
        for one in arrivals:
            mark = one if isinstance(one, Progress) else one.message.mark
            if self._is_past(one):
                continue
            if mark.log and (change := self._change(mark.log, mark.epoch)) is not None:
                self.change = change
                return
            if isinstance(one, Progress):
                self.announced = one
            elif not self._message(one):
                return
            self._pass()

    def _is_past(self, one: Kept | Progress) -> bool:
        """Whether it is of an epoch before this one, and tells nothing new."""
        mark = one if isinstance(one, Progress) else one.message.mark
        if mark.log != self.at.log or self.at.epoch is None or mark.epoch >= self.at.epoch:
            return False
        return isinstance(one, Progress) or one.message.mark.position <= self.at.position

    def _message(self, kept: Kept) -> bool:
        mark, at = kept.message.mark, self.at
        if not mark.log and kept.message.body:  # a stranger's: nothing of the source
            self.parked.append(Parking(kept, UNKNOWN, "it is not Headwater's", culprit=True))
        elif kept.message.body and mark.position > at.position:
            if kept.message.after > at.position:
                self.change = SourceChanged(
                    f"Messages of {self.inbox.source!r} after position {at.position} and up to {kept.message.after} "
                    "are no longer in the stream.",
                    hint=f"Have it publish all again by another edition, or do without: headwater inboxes accept "
                    f"{self.inbox.name} --after {kept.message.after}.",
                )
                return False
            self._event(kept)
            at = replace(at, position=mark.position, upto=max(at.upto, mark.position))
        self.at = replace(at, sequence=kept.sequence)
        return True

    def _event(self, kept: Kept) -> None:
        try:
            told = self.inbox.read(kept.message)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self.parked.append(
                Parking(kept, UNKNOWN, f"it is no CloudEvent: {error}", culprit=True)
            )
            return
        if "\0" in told.tenant + told.subject:
            self.parked.append(Parking(kept, UNKNOWN, "its stream's name holds NUL", culprit=True))
            return
        if told.type not in self.inbox.types:
            return
        place = Place(told.tenant, told.subject)
        if place in self.waiting:
            self.parked.append(Parking(kept, place, FOLLOWS, culprit=False))
        else:
            self.due.append((kept, told))

    def _pass(self) -> None:
        """Believes what was announced, once all that it speaks of is taken."""
        told = self.announced
        if told is not None and told.sequence <= self.at.sequence:
            self.announced = None
            self.at = replace(self.at, upto=max(self.at.upto, told.upto))

    def _change(self, log: str, epoch: int) -> SourceChanged | None:
        if log == self.own:
            return SourceChanged(
                f"{self.inbox.source!r} and this app have one log, or their databases are copies of one.",
                hint="Give each service a database that headwater init has made.",
            )
        if self.at.log is None:
            self.at = replace(self.at, log=log, epoch=epoch)
            return None
        if log != self.at.log:
            what = f"The stream of {self.inbox.name!r} is now of the log {log!r}, and was of {self.at.log!r}."
            how = f"headwater inboxes accept {self.inbox.name} --after 0 takes all that it holds."
            return SourceChanged(what, hint=f"If {self.inbox.source!r} was made anew, {how}")
        if epoch != self.at.epoch:
            return SourceChanged(
                f"{self.inbox.source!r} was restored or failed over after position {self.at.position} was received.",
                hint="If its log still has that event, headwater inboxes accept "
                f"{self.inbox.name} goes on; --after POSITION says where else.",
            )
        return None

    def refuse(self, refused: dict[int, str]) -> None:
        """Parks what was refused, by its place in ``due``, and what follows it."""
        still = []
        for number, (kept, told) in enumerate(self.due):
            place = Place(told.tenant, told.subject)
            if place in self.waiting:
                self.parked.append(Parking(kept, place, FOLLOWS, culprit=False))
            elif (reason := refused.get(number)) is not None:
                self.waiting.add(place)
                self.parked.append(Parking(kept, place, reason, culprit=True))
            else:
                still.append((kept, told))
        self.due = still
