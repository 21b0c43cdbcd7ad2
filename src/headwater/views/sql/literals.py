"""Literals as Postgres reads them, in their plainest spellings. What is spelt otherwise is not read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import date as calendar_date
from typing import Literal
from uuid import UUID

_NUMBER = re.compile(r"(\d*)(?:\.(\d*))?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?(Z|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is written out: its kind, and how many digits are before its point and after it."""

    kind: Literal["integer", "decimal"]
    digits: int
    scale: int


def number(text: str) -> Number | None:
    """A number in digits, or None."""
    found = _NUMBER.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    whole, after = found[1].lstrip("0"), found[2]
    if after is None and int(text) < 2**63:
        return Number("integer", len(whole), 0)
    return Number("decimal", len(whole), len(after or ""))


def signed_number(text: str) -> Number | None:
    """As ``number``, with a sign and blanks around it."""
    return number(text.strip().removeprefix("-"))


def date(text: str) -> str | None:
    """A date as YYYY-MM-DD, or None."""
    if not _DATE.fullmatch(text.strip()):
        return None
    try:
        return calendar_date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        return None


def moment(text: str) -> str | None:
    """A moment in UTC as YYYY-MM-DD HH:MM:SS.ffffff, or None. Without an offset it is in UTC."""
    if not _MOMENT.fullmatch(text.strip()):
        return None
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    read = read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    return read.strftime("%Y-%m-%d %H:%M:%S.%f") if read.year > 999 else None


def uuid(text: str) -> str | None:
    """A UUID as Postgres writes it, or None."""
    try:
        return str(UUID(text)) if len(text) == 36 else None
    except ValueError:
        return None
