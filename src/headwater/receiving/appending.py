"""Appends what an inbox takes, each event as a group of its own, tenant by tenant."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg

from headwater.errors import DatabaseUnavailable, HeadwaterError
from headwater.log.database import Connection
from headwater.log.failures import caused_by_data, refusal, translate
from headwater.log.writing import Group, append_groups
from headwater.receiving.inbox import Inbox, Told
from headwater.views.messages import Kept

Due = Sequence[tuple[Kept, Told]]


class Refused(Exception):
    """Some of the events cannot be appended: why, by their places. Nothing was appended."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(str(reasons))
        self.reasons = reasons


async def append(connection: Connection, inbox: Inbox, due: Due) -> int:
    """Appends inside a transaction; the position of the last, 0 where there is none.

    The order is kept within each tenant. Raises Refused, and what Postgres raises.
    """
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
    last = 0
    for tenant in sorted(by_tenant):
        numbered = by_tenant[tenant]
        appended = await append_groups(connection, [group for _, group in numbered])
        for outcome in appended.outcomes:
            reasons[numbered[outcome["g"]][0]] = str(refusal(outcome))
        last = max(last, *appended.positions, 0)
    if reasons:
        raise Refused(reasons)
    return last


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
