"""Sealing and opening: text of a person, under that person's key.

AES-256-GCM. The nonce follows from the text and the key, so the same text of the same person is the same when
sealed again: a repeated request is recognised, and nothing is told beyond that two texts of one person are equal.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from headwater.errors import KeyUnavailable
from headwater.events import Event, EventType
from headwater.events.personal import is_sealed, key_of
from headwater.log import Fact
from headwater.log.enqueuing import Enqueue
from headwater.log.writing import Group, event_of
from headwater.personal.answers import seen_now
from headwater.personal.blind import blind, index_key
from headwater.personal.keys import Key, SubjectKeys, key_name, whose_of

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

FORGOTTEN = "(forgotten)"
"""What a sealed text opens to once its person has been forgotten."""
_NONCE_BYTES = 12
_KEY, _DATA = slice(4, 26), 27


class Sealing:
    """Seals events on their way into the log, and opens what readers got out of it."""

    def __init__(self, keys: SubjectKeys) -> None:
        self.keys = keys

    async def seal(self, tenant: str, events: Sequence[Event | Fact]) -> list[Event | Fact]:
        """The events with their personal fields sealed; what is sealed already stays.

        Raises SubjectForgotten for a person who has been forgotten, and KeyUnavailable.
        """
        wanted = {subject for item in events for _, subject, _ in _clear(event_of(item))}
        wanted |= {whose_of(subject) for subject in wanted}  # who is forgotten is refused
        if not wanted:
            return list(events)
        keys = await self.keys.for_sealing(tenant, wanted)
        _note(key.key_id for key in keys.values())
        is_blind = any(EventType.of(type(event_of(item))).blind for item in events)
        index = await index_key(self.keys, tenant) if is_blind else None
        return [self._sealed(item, keys, index) for item in events]

    def _sealed(
        self, item: Event | Fact, keys: Mapping[str, Key], index: Key | None
    ) -> Event | Fact:
        event = event_of(item)
        changes, found = {}, []
        indexes = EventType.of(type(event)).blind
        for name, subject, text in _clear(event):
            changes[name] = sealed(keys[subject], text)
            if index is not None and name in indexes:
                found.append(blind(index, indexes[name], text))
        if not changes:
            return item
        event = msgspec.structs.replace(event, **changes)
        if found:
            fact = item if isinstance(item, Fact) else Fact(event=event)
            return msgspec.structs.replace(fact, event=event, blind=(*fact.blind, *found))
        return msgspec.structs.replace(item, event=event) if isinstance(item, Fact) else event

    async def blind(self, tenant: str, name: str, text: str) -> str:
        """The key that events carry whose field in that index says so. Raises KeyUnavailable."""
        return blind(await index_key(self.keys, tenant), name, text)

    async def seal_fields(self, tenant: str, value: S, marks: Mapping[str, str]) -> S:
        """A struct with some fields sealed, each for the subject that another names. Raises as ``seal``."""
        clear = {name: getattr(value, name) for name in marks}
        changes = await self._seal_texts(
            tenant, clear, {n: getattr(value, s) for n, s in marks.items()}
        )
        return msgspec.structs.replace(value, **changes) if changes else value

    async def seal_group(self, group: Group, personal: Mapping[str, EventType]) -> None:
        """Seals events of these types that are JSON still, in place, as ``seal`` does. Raises as it."""
        read: dict[int, dict[str, msgspec.Raw]] = {}
        clear: dict[tuple[int, str], tuple[str, str]] = {}
        for number, (kind, data) in enumerate(zip(group.types, group.data, strict=True)):
            if kind in personal:
                with suppress(msgspec.MsgspecError):
                    read[number] = _fields.decode(data)
                    for field, subject, text in _clear_in(read[number], personal[kind]):
                        clear[number, field] = subject, text
        if not clear:
            return
        wanted = {subject for subject, _ in clear.values()}
        wanted |= {whose_of(subject) for subject in wanted}
        keys = await self.keys.for_sealing(group.tenant, wanted)
        is_blind = any(declared.blind for declared in personal.values())
        index = await index_key(self.keys, group.tenant) if is_blind else None
        for (number, field), (subject, text) in clear.items():
            read[number][field] = msgspec.Raw(msgspec.json.encode(sealed(keys[subject], text)))
            name = personal[group.types[number]].blind.get(field)
            if index is not None and name is not None:
                carried = msgspec.json.decode(group.keys[number] or b"[]")
                group.keys[number] = msgspec.json.encode([*carried, blind(index, name, text)])
        for number in {number for number, _ in clear}:
            group.data[number] = msgspec.json.encode(read[number])

    async def seal_job(self, tenant: str, job: Enqueue) -> Enqueue:
        """A job with its personal arguments sealed. Raises as ``seal``."""
        arguments = msgspec.json.decode(job.arguments)
        clear = {name: arguments.get(name) for name in job.personal}
        changes = await self._seal_texts(
            tenant, clear, {n: arguments[s] for n, s in job.personal.items()}
        )
        if not changes:
            return job
        encoded = msgspec.json.encode(arguments | changes)
        return msgspec.structs.replace(job, arguments=msgspec.Raw(encoded))

    async def _seal_texts(
        self, tenant: str, texts: Mapping[str, Any], subjects: Mapping[str, Any]
    ) -> dict[str, str]:
        clear = {n: text for n, text in texts.items() if text is not None and not is_sealed(text)}
        if not clear:
            return {}
        keys = await self.keys.for_sealing(tenant, {str(subjects[name]) for name in clear})
        _note(key.key_id for key in keys.values())
        return {name: sealed(keys[str(subjects[name])], text) for name, text in clear.items()}

    async def open(self, tenant: str, value: T) -> T:
        """A value with the sealed texts in it opened: an event, a document, a row, or lists of them.

        Texts of a person who has been forgotten, and those of another tenant, become FORGOTTEN. Raises
        KeyUnavailable where a master key is missing or wrong, or a text was changed.
        """
        texts: set[str] = set()

        def collect(text: str) -> str:
            if is_sealed(text):
                texts.add(text)
            return text

        _changed(value, collect)
        if not texts:
            return value
        opened_texts = await self.opened(tenant, texts)
        result: T = _changed(value, lambda text: opened_texts.get(text, text))
        return result

    async def opened(self, tenant: str, texts: Collection[str]) -> dict[str, str]:
        """Sealed texts and what they open to: FORGOTTEN where the key is gone, or another tenant's.

        Raises KeyUnavailable.
        """
        names = {text[_KEY]: text for text in texts}
        ids = {name: key_of(text) for name, text in names.items()}
        found = await self.keys.for_opening(tenant, list(ids.values()))
        keys = {name: found[key_id] for name, key_id in ids.items()}
        _note(key.key_id for key in keys.values() if key is not None)
        return {
            text: FORGOTTEN if (key := keys[text[_KEY]]) is None else opened(key, text)
            for text in texts
        }


def _note(key_ids: Iterable[UUID]) -> None:
    seen = seen_now.get()
    if seen is not None:
        seen.update(key_ids)


def _clear(event: Event) -> Iterator[tuple[str, str, str]]:
    """The personal fields of an event that are not sealed: name, under whose key, text."""
    declared = EventType.of(type(event))
    for name, subject in declared.personal.items():
        text = getattr(event, name)
        if isinstance(text, str) and not is_sealed(text):
            whose = str(getattr(event, subject))
            yield name, key_name(whose, declared.kept_days.get(name)), text


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])  # what is not sealed stays as it was written


def _clear_in(
    data: Mapping[str, msgspec.Raw], declared: EventType
) -> Iterator[tuple[str, str, str]]:
    """As ``_clear``, of an event that is JSON still; fields of another shape are passed by."""
    for name, subject in declared.personal.items():
        if name in data and subject in data:
            text, whose = msgspec.json.decode(data[name]), msgspec.json.decode(data[subject])
            if isinstance(text, str) and not is_sealed(text) and isinstance(whose, (str, int)):
                yield name, key_name(str(whose), declared.kept_days.get(name)), text


def sealed(key: Key, text: str) -> str:
    """Text under a person's key."""
    plain = text.encode()
    nonce = hmac.digest(key.nonces, key.context + b"\0" + plain, "sha256")[:_NONCE_BYTES]
    data = nonce + key.cipher.encrypt(nonce, plain, key.context)
    return key.prefix + base64.urlsafe_b64encode(data).decode().rstrip("=")


def opened(key: Key, text: str) -> str:
    """The text again. Raises KeyUnavailable where it was changed."""
    from cryptography.exceptions import InvalidTag

    data = _bytes(text[_DATA:])
    try:
        plain: bytes = key.cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], key.context)
    except InvalidTag as error:
        raise KeyUnavailable(
            "A sealed text was changed, or was sealed elsewhere: it does not open with its key.",
            hint="Find which event it is from, and how it came into the log.",
        ) from error
    return plain.decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """A value with each text in it changed, where another comes of it."""
    match value:
        case str():
            return change(value)
        case msgspec.Struct():
            changes = {
                name: new
                for name in value.__struct_fields__
                if (new := _changed(old := getattr(value, name), change)) is not old
            }
            return msgspec.structs.replace(value, **changes) if changes else value
        case dict():
            return {name: _changed(each, change) for name, each in value.items()}
        case list():
            return [_changed(each, change) for each in value]
        case tuple():
            return tuple(_changed(each, change) for each in value)
    return value
