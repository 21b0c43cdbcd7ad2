"""Step 1 of the protocol rests on a number that Postgres changes in place: it must have been drawn.

While nextval writes its log record, the sequence shows the position 32 further on; only the
buffer's lock hides that. So the function that the ticker calls is watched under fire.
"""

from __future__ import annotations

import threading

import psycopg
import pytest
from marked import prepare

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]

DRAWN = "SELECT drawn FROM headwater.observe(9223372036854775807)"
DRAW = """
DO $$ BEGIN LOOP
  PERFORM nextval('headwater.position_seq') FROM generate_series(1, 1000);
END LOOP; END $$
"""
WATCH = """
CREATE FUNCTION watch(statement text, seconds int) RETURNS TABLE (earlier bigint, later bigint)
LANGUAGE plpgsql AS $$
DECLARE
  ends timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
  WHILE clock_timestamp() < ends LOOP
    EXECUTE statement INTO earlier;
    EXECUTE statement INTO later;
    IF later < earlier THEN
      RETURN NEXT;
      RETURN;
    END IF;
  END LOOP;
END
$$
"""

OPEN_STREAMS = """
DO $$
DECLARE
  ends timestamptz := clock_timestamp() + interval '4 s';
  line int := 0;
BEGIN
  PERFORM set_config('headwater.tenant', 'main', true);
  WHILE clock_timestamp() < ends LOOP
    line := line + 1;
    PERFORM headwater.append('line/' || line, 'attack.marked', jsonb_build_object('line', line::text, 'mark', line::text));
  END LOOP;
END $$
"""
HIDDEN = """
SELECT s.stream, s.first_position - e.position
FROM headwater.streams AS s JOIN headwater.events AS e USING (tenant, stream)
WHERE e.position < s.first_position
"""


@pytest.fixture
def drawing(database):
    """Two sessions that draw positions as fast as they can."""
    connections = [database.admin() for _ in range(2)]

    def draw(connection):
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(DRAW)

    threads = [threading.Thread(target=draw, args=[connection]) for connection in connections]
    for thread in threads:
        thread.start()
    yield
    for connection, thread in zip(connections, threads, strict=True):
        connection.cancel_safe()
        thread.join()
        connection.close()


def test_the_position_read_as_drawn_never_falls(database, drawing):
    """It only rises, so one that is followed by a lower one was never drawn."""
    with database.admin() as admin:
        admin.execute(WATCH)
        fell = admin.execute("SELECT * FROM watch(%s, 4)", [DRAWN]).fetchall()
    assert fell == []


async def test_no_event_is_hidden_by_its_streams_first_position(database, drawing):
    """A stream is read from its first position on, which is read from the sequence too."""
    await prepare(database.url)
    with database.admin() as admin:
        admin.execute(OPEN_STREAMS)
        assert admin.execute(HIDDEN).fetchall() == []
