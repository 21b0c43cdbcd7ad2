"""A shop whose tables are captured by replication, and a reader in this process."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

from headwater.capture import (
    CaptureOptions,
    Replication,
    capture,
    check_requirements,
    compare,
    make_told,
)
from headwater.log import Database
from tests.support.captured import Shop

REPLICATED = CaptureOptions(tenant="main", way="replication")


class ReplicatedShop(Shop):
    """A shop of which a login with REPLICATION reads the slot."""

    def __init__(self, database):
        super().__init__(database)
        self.relay = Database(database.url, "headwater_relay")
        self.url = database.url

    def reader(self, max_wal_bytes=2**34):
        return Replication(self.relay, self.url, max_wal_bytes)

    @asynccontextmanager
    async def reading(self, **options):
        reader = self.reader(**options)
        await reader.start()
        try:
            yield reader
        finally:
            await reader.stop()

    async def capture(self, table="shop.orders", options=REPLICATED, *, whole=True):
        await check_requirements(self.operator, self.url)
        captured = await capture(self.operator, table, options)
        await make_told(self.operator, self.url, captured.id)
        if whole:
            await self.fill(captured)
        return captured

    async def fill(self, captured):
        return [progress async for progress in compare(self.operator, captured)]

    def state(self):
        with self.database.admin() as admin:
            return admin.execute(
                "SELECT state, detail FROM headwater.replication UNION ALL SELECT state, detail FROM headwater.captures WHERE state <> 'released'"
            ).fetchall()

    async def until_read(self, seconds=90):
        """Returns once the reader has told all that has committed by now."""
        async with self.operator.connection() as connection:
            cursor = await connection.execute("SELECT pg_current_wal_insert_lsn()::text")
            parameters = await cursor.fetchone()
            deadline = time.monotonic() + seconds
            while True:
                want = "SELECT headwater.want_replication(%s::pg_lsn) >= %s::pg_lsn"
                cursor = await connection.execute(want, parameters * 2)
                if (await cursor.fetchone())[0]:
                    return
                assert time.monotonic() < deadline, self.state()
                await asyncio.sleep(0.01)

    def drop_slots(self):
        with self.database.admin() as admin:
            for (slot,) in admin.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
            ).fetchall():
                admin.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                    [slot],
                )
                while admin.execute(
                    "SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]
                ).fetchone()[0]:
                    pass
                admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])

    async def close(self):
        await self.relay.close()
        await super().close()
        self.drop_slots()
