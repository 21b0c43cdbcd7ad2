"""Drives a publication: hands the log's events to a bus, in order, each once.

The channel is its own checkpoint. Every message says at which position of which log it stands, and is accepted
only right after the message that its publisher saw last. So whoever takes over reads the last message, and
first adds one that says so: from then on all that an earlier holder still sends is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from headwater.errors import DefinitionError, HeadwaterError, LeaseLost, UnknownView, ViewStale
from headwater.log.database import Connection, Database
from headwater.log.tasks import ended
from headwater.relay import Batch, CannotApply
from headwater.views.definition import Difference, Explanation, Sample, Verification
from headwater.views.driving.record import SQL
from headwater.views.driving.view import DrivenView
from headwater.views.messages import Kept, Mark, Message, OutsideMessages, Progress
from headwater.views.port import Report
from headwater.views.publication import Publication

_SAMPLED_MESSAGES = 10_000
_MOST_BYTES = 8_000_000
_LOOK_SECONDS = 0.05
_REPEAT_SECONDS = 1.0


class DrivenPublication(DrivenView):
    """A publication and its channel."""

    max_batch = 10_000
    rewrites = False

    def __init__(
        self, database: Database, publication: Publication, storage: OutsideMessages
    ) -> None:
        super().__init__(database, publication.definition, publication.on_failure)
        self.publication = publication
        self.storage = storage
        self._channel = publication.channel
        self._aside: set[int] = set()
        self._mark: Mark | None = None
        self._sequence = 0
        self._largest = 0
        self._progress: Progress | None = None
        self._telling: asyncio.Task[None] | None = None

    # Deployment ----------------------------------------------------------------------------------

    async def _create(self, connection: Connection) -> None:
        """Nothing in the log's database; the channel is created when the view is opened."""

    async def _drop(self, connection: Connection) -> None:
        """Nothing: what is published stays published."""

    async def start_over(self, connection: Connection) -> None:
        """Goes on by the definition of now, from where it is; another edition begins at the beginning."""
        if await self.learn(connection) == "missing":
            raise UnknownView(
                f"The view {self.name!r} is not deployed.", hint="Run headwater up or init first."
            )
        cursor = await connection.execute(SQL["record.channel"], {"view": self.name})
        row = await cursor.fetchone()
        if row is not None and row[0] == self._channel.stream:
            await self.record.disturb(connection)
        else:
            await self.record.restart(connection)
        await self.record.redefine(connection)

    # Driving -------------------------------------------------------------------------------------

    async def _opened(self, checkpoint: int) -> int:
        record, connection = self.record, self.record.connection
        self._aside = {row[0] for row in await record.not_applied(connection)}
        await self.storage.prepare(self._channel)
        self._largest = await self.storage.largest(self._channel)
        tail = await self.storage.tail(self._channel)
        log, epoch = await _row(connection, "log.identity")
        if tail.mark is None:  # new, or emptied: the record is never ahead of what was accepted
            position, event = await self._newest(checkpoint)
        else:
            position = await self._proven(tail.mark, str(log), epoch, checkpoint)
            event = tail.mark.event
        mark = Mark(str(log), epoch, record.fence, record.generation, position, event)
        self._mark = mark
        hold = Message(self._channel.holds, mark)
        self._sequence = await self.storage.publish(self._channel, tail.sequence, [hold])
        if mark.position != checkpoint:
            await record.follow_store(mark.position)
        self._progress = Progress(mark.log, mark.epoch, self._sequence, mark.position)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name=f"progress {self.name}")
        return mark.position

    async def close(self) -> None:
        """Gives back what driving holds. Idempotent."""
        telling, self._telling = self._telling, None
        if telling is not None:
            await ended([telling])
        self._progress = None
        await super().close()

    async def _tell(self) -> None:
        """Says how far the publication is as it moves, and each second: receivers may have come, or not have heard."""
        told, at = self._progress, time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if self._progress is not None and (
                self._progress != told or now - at > _REPEAT_SECONDS
            ):
                told, at = self._progress, now
                with suppress(HeadwaterError, OSError):
                    await self.storage.announce(self._channel, told)

    async def _newest(self, upto: int) -> tuple[int, str]:
        """The last event published up to a position, and its id."""
        types = self.publication.type_names
        cursor = await self.record.connection.execute(
            SQL["log.newest"], {"after": 0, "upto": upto, "types": types}
        )
        row = await cursor.fetchone()
        return (upto, "") if row is None else (row[0], bytes(row[1]).hex())

    async def _proven(self, found: Mark, log: str, epoch: int, recorded: int) -> int:
        """Where to go on after the last message. Raises ViewStale where it is not of this log's history."""
        if found.log != log:
            raise ViewStale(
                f"The stream {self._channel.stream!r} holds the messages of another log.",
                hint=f"Rename the app or {self.name!r}, or raise its edition.",
            )
        if found.epoch == epoch and found.fence > self.record.fence:
            raise LeaseLost(f"Another relay publishes {self.name!r}.")
        if not found.event:
            return found.position if found.epoch == epoch else min(found.position, recorded)
        cursor = await self.record.connection.execute(
            SQL["log.id_at"], {"position": found.position}
        )
        row = await cursor.fetchone()
        if row is None or bytes(row[0]).hex() != found.event:
            raise ViewStale(
                f"The last message of {self.name!r} is the event at position {found.position}, "
                "which this log does not have: the log was restored.",
                hint=f"Raise the edition of {self.name!r} and run headwater rebuild: "
                "receivers go over to the new stream.",
            )
        return found.position

    async def apply(self, batch: Batch) -> None:
        """Publishes the batch's events; then the record follows. See Target."""
        mark = self._mark
        if mark is None:
            raise LeaseLost(f"The view {self.name!r} is not open.")
        marked = {**batch.parked, **batch.skipped}
        # What a failed attempt had published already is not published again.
        after = max(batch.after, mark.position)
        rows = await self._rows(self.record.connection, after, batch.upto)
        messages = list(self._messages([row for row in rows if row[0] not in marked], mark))
        for message in messages:  # before the first is published
            if (size := self.storage.size(message)) > self._largest:
                reason = f"its message has {size} bytes; the bus takes {self._largest}"
                raise CannotApply(reason, message.mark.position)
        for some in self._cut(messages):
            self._sequence = await self.storage.publish(self._channel, self._sequence, some)
            self._mark = replace(mark, position=some[-1].mark.position, event=some[-1].mark.event)
        if not marked:
            await self.record.at_once(batch.after, batch.upto)
        else:
            await self._set_aside(batch)
        self._aside.update(marked)
        self._progress = Progress(mark.log, mark.epoch, self._sequence, batch.upto)

    async def _set_aside(self, batch: Batch) -> None:
        async with self.record.batch(batch.after, batch.upto) as connection:
            for status, found in (("parked", batch.parked), ("skipped", batch.skipped)):
                for position, reason in found.items():
                    await self.record.set_aside(connection, position, None, reason, status=status)

    def _messages(self, rows: Sequence[Any], mark: Mark) -> Iterator[Message]:
        after = mark.position if mark.event else 0
        for row in rows:
            yield self.publication.message(row, mark, after)
            after = row[0]

    def _cut(self, messages: Sequence[Message]) -> Iterator[list[Message]]:
        """Runs of messages that one publish takes: neither too many nor too large together."""
        some: list[Message] = []
        size = 0
        for message in messages:
            bytes_more = self.storage.size(message)
            if some and (len(some) == self.storage.max_at_once or size + bytes_more > _MOST_BYTES):
                yield some
                some, size = [], 0
            some.append(message)
            size += bytes_more
        if some:
            yield some

    async def _rows(self, connection: Connection, after: int, upto: int) -> list[Any]:
        cursor = await connection.execute(
            SQL["log.recorded_events"],
            {
                "after": after, "upto": upto, "types": self.publication.type_names,
                "slices": 1, "slice": 0, "slice_key": "",
            },
        )  # fmt: skip
        return [row for row in await cursor.fetchall() if row[0] not in self._aside]

    # Care ----------------------------------------------------------------------------------------

    async def verify(
        self, report: Report | None = None, *, limit: int = 20, sample: Sample | None = None
    ) -> Verification:
        """Compares the messages of this generation that the channel still holds with the log.

        In order, up to the checkpoint. A difference's key is the position of the event. A sample is a range of
        at most 10,000 messages.
        """
        async with self._database.connection() as connection:
            await self.learn(connection)
            position = await self.record.checkpoint(connection) or 0
            aside = await self.record.not_applied(connection)
            self._aside = {row[0] for row in aside}
            log, epoch = await _row(connection, "log.identity")
            mark = Mark(str(log), epoch, 0, self.record.generation, 0, "")
            comparing = _Comparing(self, connection, mark, position)
            first, last = await self.storage.span(self._channel)
            begin, end = _range(first, last, sample)
            at = begin - 1
            while some := await self.storage.kept(self._channel, at, end):
                await comparing.take(some)
                at = some[-1].sequence
                if report is not None:
                    report(at - begin + 1, end - begin + 1)
            if end == last:
                await comparing.rest()
        differences = comparing.differences
        parked = sum(status == "parked" for _, _, _, status in aside)
        return Verification(
            self.name,
            position,
            comparing.messages,
            len(differences),
            tuple(differences[:limit]),
            parked,
        )

    async def explain(
        self, key: Sequence[str | None], *, tenant: str, limit: int = 20
    ) -> Explanation:
        """Refused: messages are events."""
        _ = key, tenant, limit
        raise DefinitionError(
            f"The messages of {self.name!r} are events themselves.", hint="Use headwater stream."
        )

    async def replay(self, positions: Sequence[int] | None = None) -> int:
        """Nothing: messages are added in order of position, so a parked one cannot come later."""
        _ = positions
        return 0

    def row_of(self, values: Sequence[Any]) -> Any:
        """Refused: messages are read by receivers."""
        _ = values
        raise DefinitionError(
            f"The publication {self.name!r} has no rows.", hint="Receive its messages from the bus."
        )


class _Comparing:
    """A walk through log and channel side by side."""

    def __init__(
        self, view: DrivenPublication, connection: Connection, mark: Mark, upto: int
    ) -> None:
        self._view = view
        self._connection = connection
        self._mark = mark
        self._upto = upto
        self._at: int | None = None
        self.messages = 0
        self.differences: list[Difference] = []

    async def take(self, kept: Sequence[Kept]) -> None:
        """The next messages of the channel."""
        mark = self._mark
        found: list[tuple[int, bytes]] = []
        for message in (one.message for one in kept):
            is_ours = message.mark.generation == mark.generation and message.mark.log == mark.log
            if not is_ours or message.mark.position > self._upto:
                continue
            if self._at is None:
                self._at = message.mark.position - bool(message.body)
            if message.body:
                found.append((message.mark.position, message.body))
        if found:
            self.messages += len(found)
            await self._compare(found, max(position for position, _ in found))

    async def rest(self) -> None:
        """What the log has after the channel's last message."""
        if self._at is not None:
            await self._compare([], self._upto)

    async def _compare(self, found: list[tuple[int, bytes]], upto: int) -> None:
        assert self._at is not None
        view = self._view
        rows = await view._rows(self._connection, self._at, upto)  # noqa: SLF001 - the same view's
        expected = {row[0]: view.publication.message(row, self._mark).body for row in rows}
        newest = self._at
        for position, body in found:
            wanted = expected.pop(position, None)
            if position <= newest or wanted is None:
                what = "no message here" if wanted is None else "a message in order"
                self._differ(position, what, "a message")
            elif wanted != body:
                self._differ(position, "the log's event", "another")
            newest = max(newest, position)
        for position in expected:
            self._differ(position, "a message", "none")
        self._at = max(self._at, upto)

    def _differ(self, position: int, expected: str, stored: str) -> None:
        self.differences.append(Difference("", str(position), expected, stored))


def _range(first: int, last: int, sample: Sample | None) -> tuple[int, int]:
    """The sequence numbers to compare."""
    if sample is None:
        return first, last
    length = max(min((last - first + 1) // sample.slices, _SAMPLED_MESSAGES), 1)
    begin = min(first + length * sample.number, last)
    return begin, min(begin + length - 1, last)


async def _row(connection: Connection, statement: str) -> tuple[Any, ...]:
    row = await (await connection.execute(SQL[statement])).fetchone()
    assert row is not None
    return row
