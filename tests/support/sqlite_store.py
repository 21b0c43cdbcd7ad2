"""A whole store of folds, on SQLite: the example of docs/how-to/add-a-store.md."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from headwater.errors import LeaseLost, StoreUnavailable
from headwater.views.storage import Checkpoint, LastEvent

TABLES = """
CREATE TABLE IF NOT EXISTS documents (place TEXT, tenant TEXT, key TEXT, document BLOB,
  PRIMARY KEY (place, tenant, key));
CREATE TABLE IF NOT EXISTS checkpoints (place TEXT PRIMARY KEY, position INT, epoch INT, fence INT, revision INT,
  last_position INT, last_id BLOB, replayed TEXT);
"""
FIELDS = "position, epoch, revision, last_position, last_id, replayed"


@dataclass(frozen=True)
class SQLite:
    name: str
    kind: ClassVar = "sqlite"
    transforms: ClassVar = frozenset({"fold"})

    def engine(self, url):
        return Engine(url)


class Engine:
    def __init__(self, path):
        self.documents = Documents(path)

    async def close(self):
        pass


def named(place):
    return f"{place.log}/{place.view}/{place.generation}"


class Documents:
    max_writes = 50

    def __init__(self, path):
        self.path = path

    @contextmanager
    def transaction(self):
        """One atomic write, or one consistent read."""
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as connection:
                connection.executescript(TABLES)
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
        except sqlite3.Error as error:
            raise StoreUnavailable(str(error)) from error

    def checkpoint(self, connection, place):
        query = f"SELECT {FIELDS} FROM checkpoints WHERE place = ?"
        row = connection.execute(query, [named(place)]).fetchone()
        if row is None:
            return None
        last = None if row[3] is None else LastEvent(row[3], row[4])
        return Checkpoint(*row[:3], last, tuple(map(int, (row[5] or "").split())))

    def change(self, connection, assignments, values, condition, expected):
        """Changes a checkpoint where it still is what is expected."""
        statement = f"UPDATE checkpoints SET {assignments} WHERE {condition}"
        if connection.execute(statement, [*values, *expected]).rowcount != 1:
            raise LeaseLost

    async def open(self, place, fence):
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO checkpoints (place, position, epoch, fence, revision) VALUES (?, 0, 0, ?, 0)",
                [named(place), fence],
            )
            condition = "place = ? AND fence <= ?"
            self.change(connection, "fence = ?", [fence], condition, [named(place), fence])
            return self.checkpoint(connection, place)

    async def adopt(self, hold, checkpoint):
        with self.transaction() as connection:
            self.change(
                connection,
                "position = ?, epoch = ?",
                [checkpoint.position, checkpoint.epoch],
                "place = ? AND fence = ? AND revision = ?",
                [named(hold.place), hold.fence, hold.revision],
            )

    async def sweep(self, place, keep):
        with self.transaction() as connection:
            for generation in range(1, place.generation):
                old = [named(replace(place, generation=generation))]
                connection.execute("DELETE FROM documents WHERE place = ?", old)
                connection.execute("DELETE FROM checkpoints WHERE place = ?", old)

    async def load(self, place, keys):
        with self.transaction() as connection:
            return self.found(connection, place, keys).items()

    def found(self, connection, place, keys):
        query = "SELECT document FROM documents WHERE place = ? AND tenant = ? AND key = ?"
        rows = {key: connection.execute(query, [named(place), *key]).fetchone() for key in keys}
        return {key: row[0] for key, row in rows.items() if row is not None}

    async def apply(self, hold, steps):
        for step in steps:
            with self.transaction() as connection:
                last = None if step.last is None else step.last.position
                self.change(
                    connection,
                    "position = ?, epoch = ?, last_position = coalesce(?, last_position), last_id = coalesce(?, last_id)",
                    [step.upto, hold.epoch, last, None if step.last is None else step.last.id],
                    "place = ? AND position = ? AND fence = ? AND revision = ?",
                    [named(hold.place), step.after, hold.fence, hold.revision],
                )
                self.write(connection, hold.place, step)

    def write(self, connection, place, step):
        connection.executemany(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)",
            [(named(place), *key, d) for key, d in zip(step.kept, step.documents, strict=True)],
        )
        connection.executemany(
            "DELETE FROM documents WHERE place = ? AND tenant = ? AND key = ?",
            [(named(place), *key) for key in step.removed],
        )

    async def disturb(self, place):
        with self.transaction() as connection:
            self.change(connection, "revision = revision + 1", [], "place = ?", [named(place)])
            return self.checkpoint(connection, place)

    async def redo(self, place, checkpoint, step):
        with self.transaction() as connection:
            self.change(
                connection,
                "replayed = ?, revision = revision + 1",
                [" ".join(map(str, checkpoint.replayed))],
                "place = ? AND position = ? AND revision = ?",
                [named(place), checkpoint.position, checkpoint.revision],
            )
            self.write(connection, place, step)
        return replace(checkpoint, revision=checkpoint.revision + 1)

    async def get(self, place, key):
        with self.transaction() as connection:
            at = self.checkpoint(connection, place)
            return -1 if at is None else at.position, self.found(connection, place, [key]).get(key)

    async def page(self, place, tenant, after, limit):
        with self.transaction() as connection:
            at = self.checkpoint(connection, place)
            rows = connection.execute(
                "SELECT key, document FROM documents WHERE place = ? AND tenant = ? AND (key > ? OR ? = '') "
                "ORDER BY key LIMIT ?",
                [named(place), tenant, after, after, limit],
            ).fetchall()
            return -1 if at is None else at.position, rows

    @asynccontextmanager
    async def reading(self, place):
        with self.transaction() as connection:
            at = self.checkpoint(connection, place)
            query = "SELECT tenant, key, document FROM documents WHERE place = ?"
            rows = connection.execute(query, [named(place)]).fetchall()
        yield Reading(self, place, 0 if at is None else at.position, rows)


class Reading:
    def __init__(self, stored, place, position, rows):
        self.stored, self.place, self.position, self.rows = stored, place, position, rows

    async def count(self):
        return len(self.rows)

    async def documents(self):
        for tenant, key, document in self.rows:
            yield (tenant, key), document

    async def at_once(self, keys):
        with self.stored.transaction() as connection:
            at = self.stored.checkpoint(connection, self.place)
            return at.position if at else 0, self.stored.found(connection, self.place, keys)
