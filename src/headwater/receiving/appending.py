"""Appends what an inbox takes, each event as a group of its own, tenant by tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from headwater.errors import DatabaseUnavailable, HeadwaterError, LeaseLost
from headwater.log import arrays
from headwater.log.database import Connection
from headwater.log.failures import caused_by_data, refusal, translate
from headwater.log.writing import Group, append_groups, packed
from headwater.receiving.inbox import Inbox, Told
from headwater.receiving.statements import SQL
from headwater.views.messages import Kept

Due = Sequence[tuple[Kept, Told]]
Numbered = Sequence[tuple[int, Group]]
_REFUSED = "HW061"


class Refused(Exception):
    """Some of the events cannot be appended: why, by their places. Nothing was appended."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(str(reasons))
        self.reasons = reasons


async def append(connection: Connection, inbox: Inbox, due: Due) -> int:
    """Appends inside a transaction; the position of the last, 0 where there is none.

    The order is kept within each tenant. Raises Refused, and what Postgres raises.
    """
    by_tenant = grouped(inbox, due)
    reasons: dict[int, str] = {}
    last = 0
    for tenant in sorted(by_tenant):
        numbered = by_tenant[tenant]
        appended = await append_groups(connection, [group for _, group in numbered])
        reasons |= _reasons(numbered, appended.outcomes)
        last = max(last, *appended.positions, 0)
    if reasons:
        raise Refused(reasons)
    return last


async def receive(
    connection: Connection, tenant: str, numbered: Numbered, move: Mapping[str, Any]
) -> None:
    """Appends a tenant's events and moves the inbox, in one statement.

    Raises Refused, LeaseLost where another has moved it, and what Postgres raises.
    """
    given = {**packed([group for _, group in numbered]), **move, "tenant": tenant}
    if given["groups"] is None:  # of one event
        given["groups"] = arrays.int_array([0])
    try:
        await connection.execute(SQL["inboxes.receive"], given, binary=True)
    except psycopg.Error as error:
        if error.sqlstate == _REFUSED:
            raise Refused(
                _reasons(numbered, msgspec.json.decode(error.diag.message_detail or "[]"))
            ) from error
        if isinstance(lost := translate(error), LeaseLost):
            raise lost from error
        raise


def _reasons(numbered: Numbered, outcomes: Sequence[dict[str, Any]]) -> dict[int, str]:
    return {numbered[outcome["g"]][0]: str(refusal(outcome)) for outcome in outcomes}


def grouped(inbox: Inbox, due: Due) -> dict[str, list[tuple[int, Group]]]:
    """The events by tenant, each a group with its place. Raises Refused."""
    by_tenant: dict[str, list[tuple[int, Group]]] = {}
    reasons: dict[int, str] = {}
    for number, (kept, told) in enumerate(due):
        group = Group(told.tenant)
        try:
            inbox.add(told, kept.message, group)
        except HeadwaterError as error:
            reasons[number] = str(error)
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            reasons[number] = f"{type(error).__name__}: {error}"
        else:
            by_tenant.setdefault(told.tenant, []).append((number, group))
    if reasons:
        raise Refused(reasons)
    return by_tenant


async def blamed(connection: Connection, inbox: Inbox, due: Due) -> dict[int, str]:
    """Which of the events Postgres does not take even alone; nothing stays behind."""
    reasons = {}
    for number, one in enumerate(due):
        try:
            async with connection.transaction(force_rollback=True):
                await append(connection, inbox, [one])
        except psycopg.Error as error:
            if not is_about_data(error):
                raise
            reasons[number] = error.diag.message_primary or str(error)
        except Refused as refused:
            reasons[number] = refused.reasons[0]
    return reasons


def is_about_data(error: psycopg.Error) -> bool:
    """Whether what was sent is at fault, and not the server or the way to it."""
    translation = translate(error)
    told = translation is not None and not isinstance(translation, DatabaseUnavailable)
    return caused_by_data(error) or (told and (error.sqlstate or "").startswith("HW"))
