"""Captured tables in tests: a shop's tables, and what the log says of them."""

from __future__ import annotations

import json

import psycopg

from headwater.capture import CaptureOptions, backfill, capture
from headwater.log import Database
from simulation.captured import Change, replay

MAIN = CaptureOptions(tenant="main")


class Shop:
    """A database with an application's schema, and Headwater's operator beside it."""

    def __init__(self, database):
        self.database = database
        self.operator = Database(database.url, "headwater_operator")
        self.writer = self.connect()
        self.run("CREATE SCHEMA shop")

    def connect(self):
        """A session of the application, which owns its tables."""
        return psycopg.connect(
            self.database.url, autocommit=True, options="-c role=headwater_app -c search_path=shop"
        )

    def run(self, statement, *parameters):
        cursor = self.writer.execute(statement, *parameters)
        return cursor.fetchall() if cursor.description else []

    async def capture(self, table="shop.orders", options=MAIN, *, whole=True):
        captured = await capture(self.operator, table, options)
        if whole:
            async for _ in backfill(self.operator, captured):
                pass
        return captured

    def log(self, where="true"):
        """Events in order: stream, version, verb, data, metadata, schema_version, tenant."""
        with self.database.admin() as admin:
            rows = admin.execute(
                "SELECT stream, version, substring(type from '[^.]+$'), data::text, metadata::text, schema_version, tenant "
                f"FROM headwater.events WHERE {where} ORDER BY position"
            ).fetchall()
        return [(*r[:3], json.loads(r[3]), json.loads(r[4]), *r[5:]) for r in rows]

    def backfilled(self):
        """The streams of rows that were there before, told by backfill or by comparing."""
        return {event[0] for event in self.log("metadata ? 'backfill'")}

    def told(self):
        """The streams of which a change was told as it happened."""
        return {event[0] for event in self.log("NOT metadata ? 'backfill'")}

    def verbs(self):
        return [(stream, version, verb) for stream, version, verb, *_ in self.log()]

    def fold(self):
        """What the log says the table holds; refuses a story that could not have happened."""
        rows, problems = replay(
            Change(tenant, stream, version, verb, data, metadata)
            for stream, version, verb, data, metadata, _, tenant in self.log()
        )
        assert problems == []
        return rows

    def misfits(self):
        """Events that their registered type would have refused, with the reason."""
        with self.database.admin() as admin:
            return admin.execute(
                "SELECT type, stream, data::text, headwater.event_refusal(stream, type, schema_version, data, metadata, NULL) "
                "FROM headwater.events "
                "WHERE headwater.event_refusal(stream, type, schema_version, data, metadata, NULL) IS NOT NULL"
            ).fetchall()

    async def close(self):
        self.writer.close()
        await self.operator.close()
