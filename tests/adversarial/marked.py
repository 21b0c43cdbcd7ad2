"""The event that the attacks write, and the statements that both sides share."""

from __future__ import annotations

import psycopg

from headwater.events import Event, EventTypes
from headwater.log import Database
from headwater.log.registry import register
from simulation.verdict import Row


class Marked(Event, type="attack.marked", stream="line/{line}"):
    line: str
    mark: str


TYPES = EventTypes([Marked])
APPEND = """
SELECT a.position FROM headwater.append(
  'line/' || %(line)s, 'attack.marked', jsonb_build_object('line', %(line)s::text, 'mark', %(mark)s::text)) AS a
"""
COMMITTED = "SELECT position, tenant, stream, version, data->>'mark' FROM headwater.events ORDER BY position"
READ = """
SELECT position, tenant, stream, version, data->>'mark' FROM headwater.read(%(after)s, max_rows => %(max_rows)s)
"""
SET_TENANT = "SELECT set_config('headwater.tenant', %(tenant)s, true)"
HEAD = "SELECT last_value FROM headwater.position_seq"
SAFE = "SELECT headwater.safe_position()"


async def prepare(url: str) -> None:
    """Registers the event type in a fresh log."""
    operator = Database(url, "headwater_operator")
    await operator.open()
    await register(operator, TYPES)
    await operator.close()


def committed_rows(admin_url: str) -> list[Row]:
    """The whole log as the superuser sees it."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        return [Row(*row) for row in connection.execute(COMMITTED)]
