"""Personal fields: what an event says of a person, and of whom.

Such a field is text that is sealed before it enters the log. Its subject is another field of the same event.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from headwater.errors import EventDefinitionError

SEALED = re.compile(r"hw1\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{38,}")
"""The layout of sealed text: a version, the key's id, and the nonce with the sealed bytes."""

WEEK_DAYS = 7
"""Texts that are kept for a time share a key with those of the same person and week."""
_INDEX = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Personal:
    """Marks a field of a person, whom another field names: ``mail: Annotated[str, Personal("customer")]``.

    With ``blind`` its events are found by what the text says, in the index of that name. After ``keep_days``, or up to a
    week less, nobody can open it any more.
    """

    subject: str
    blind: str | None = None
    keep_days: int | None = None


def personal_fields(cls: type[msgspec.Struct], schema: Mapping[str, Any]) -> dict[str, str]:
    """The personal fields of an event class, with the field that names each one's subject.

    Raises EventDefinitionError where a field or its subject is of no use for that.
    """
    found = personal_marks(cls)
    for name in found:
        given = schema["properties"].get(name)
        text: dict[str, Any] = {"type": "string"}
        if given not in (text, {"anyOf": [text, {"type": "null"}]}):
            raise EventDefinitionError(
                f"The personal field {cls.__name__}.{name} is not text.",
                hint="Use str or str | None without limits: what is sealed is text.",
            )
    for name, subject in found.items():
        if subject in found or subject not in schema["required"]:
            raise EventDefinitionError(
                f"The personal field {cls.__name__}.{name} is of {subject!r}, which is no required field.",
                hint="Name a required field that is not personal itself, such as the customer's number.",
            )
    return found


def personal_marks(annotated: Any) -> dict[str, str]:
    """What a class or a function marks as personal: its fields or parameters, with the one that names the subject."""
    return {name: mark.subject for name, mark in _marks(annotated).items()}


def blind_indexes(annotated: Any) -> dict[str, str]:
    """The fields that are found by what they say, with the name of the index. Raises EventDefinitionError."""
    found = {name: mark.blind for name, mark in _marks(annotated).items() if mark.blind is not None}
    for name, index in found.items():
        if not _INDEX.fullmatch(index):
            raise EventDefinitionError(
                f"The blind index {index!r} of {annotated.__name__}.{name} has a malformed name.",
                hint="Use up to 40 lower-case letters, digits and underscores, a letter first.",
            )
    return found


def kept_days(annotated: Any) -> dict[str, int]:
    """The fields that are kept for a time, with how many days. Raises EventDefinitionError."""
    marks = _marks(annotated)
    for name, mark in marks.items():
        if mark.keep_days is not None and (mark.keep_days < WEEK_DAYS or mark.blind is not None):
            raise EventDefinitionError(
                f"The personal field {annotated.__name__}.{name} cannot be kept for {mark.keep_days} days.",
                hint=f"Keep it for {WEEK_DAYS} days or longer, and without a blind index, which would stay.",
            )
    return {name: mark.keep_days for name, mark in marks.items() if mark.keep_days is not None}


def _marks(annotated: Any) -> dict[str, Personal]:
    hints = get_type_hints(annotated, include_extras=True)
    marks = {
        name: [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Personal)]
        for name, hint in hints.items()
    }
    return {name: found[0] for name, found in marks.items() if found}


def sealed_schema(schema: Mapping[str, Any], personal: Mapping[str, str]) -> dict[str, Any]:
    """A schema as the database checks it: personal fields hold sealed text and no other."""
    properties = dict(schema["properties"])
    for name, subject in personal.items():
        sealed = {"type": "string", "format": "sealed", "subject": subject}
        optional = "anyOf" in properties[name]
        properties[name] = {"anyOf": [sealed, {"type": "null"}]} if optional else sealed
    return {**schema, "properties": properties}


def sealed_properties(schema: Mapping[str, Any]) -> dict[str, str]:
    """The personal fields of a schema as the database has it, with the field that names each one's subject."""
    options = {
        name: [o for o in field.get("anyOf", (field,)) if o.get("format") == "sealed"]
        for name, field in schema["properties"].items()
    }
    return {name: found[0]["subject"] for name, found in options.items() if found}


def is_sealed(value: object) -> bool:
    """Whether a value is sealed text, by its layout."""
    if not isinstance(value, str) or not value.startswith("hw1."):
        return False
    return SEALED.fullmatch(value) is not None


def key_of(text: str) -> UUID:
    """The id of the key that sealed a text."""
    return UUID(bytes=base64.urlsafe_b64decode(text[4:26] + "=="))
