"""A logical replication slot over Postgres's replication protocol, which psycopg does not speak.

psycopg's wrapper of libpq does: a connection opened for replication, a command, and then messages in
both directions.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, pq

from headwater.errors import CaptureRefused
from headwater.log.failures import translated

_POSTGRES_EPOCH_SECONDS = 946_684_800
# Values are printed as the functions that capture by triggers print them.
_SESSION = (
    "-c timezone=UTC -c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c extra_float_digits=1 "
    "-c bytea_output=hex"
)


def lsn_of(text: str) -> int:
    """The number of an LSN such as ``0/16B3748``."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(lsn: int) -> str:
    """An LSN as Postgres writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


class SlotConnection:
    """A connection for replication: makes, drops and reads a slot."""

    def __init__(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self.reached = 0
        """Every commit up to here has been received, where no transaction is half received."""
        self._replied = 0.0

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connects. Raises CaptureRefused where the login may not replicate."""
        try:
            connection = await AsyncConnection.connect(
                url, autocommit=True, replication="database", options=_SESSION,
                application_name="headwater replication", connect_timeout=10,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            if "permission denied" in str(error) or "must be superuser or replication" in str(error):  # fmt: skip
                raise CaptureRefused(
                    "The login may not read a replication slot.",
                    hint="ALTER ROLE ... REPLICATION; or name another login in HEADWATER_REPLICATION_URL.",
                ) from error
            with translated():
                raise
        return cls(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(psycopg.Error):
            self._libpq.finish()
        await self._connection.close()

    async def create(self, slot: str) -> int:
        """Makes the slot; from which LSN it tells. Waits for every open transaction of the cluster."""
        result = await self._command(
            f"CREATE_REPLICATION_SLOT {_quoted(slot)} LOGICAL pgoutput (SNAPSHOT 'nothing')"
        )
        value = result.get_value(0, 1)
        assert value is not None
        return lsn_of(value.decode())

    async def drop(self, slot: str) -> None:
        """Drops the slot, once its reader has let go of it. One that is gone already is no error."""
        with suppress(psycopg.errors.UndefinedObject):
            await self._command(f"DROP_REPLICATION_SLOT {_quoted(slot)} WAIT")

    async def follow(self, slot: str, after: int, publications: Sequence[str]) -> None:
        """Begins to receive the transactions that committed behind ``after``."""
        names = ",".join(_quoted(name) for name in publications).replace("'", "''")
        await self._command(
            f"START_REPLICATION SLOT {_quoted(slot)} LOGICAL {lsn_text(after)} "
            f"(proto_version '1', publication_names '{names}')",
            pq.ExecStatus.COPY_BOTH,
        )
        self.reached = after

    async def _command(
        self, command: str, expected: pq.ExecStatus = pq.ExecStatus.TUPLES_OK
    ) -> pq.abc.PGresult:
        result = await asyncio.to_thread(self._libpq.exec_, command.encode())
        if result.status in {expected, pq.ExecStatus.COMMAND_OK}:
            return result
        with translated():
            raise psycopg.errors.error_from_result(result)

    def receive(self) -> bytes | None:
        """The next message of a transaction, or None where none has come yet."""
        while True:
            size, data = self._libpq.get_copy_data(1)
            if size == 0:
                self._libpq.consume_input()
                size, data = self._libpq.get_copy_data(1)
            if size == 0:
                return None
            if size < 0:
                result = self._libpq.get_result()
                if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result)
                raise psycopg.OperationalError("the server ended the replication")
            message = bytes(data)
            if message[:1] == b"w":
                return message[25:]
            if message[:1] == b"k":
                self._kept_alive(message)

    def _kept_alive(self, message: bytes) -> None:
        reached, _, reply = struct.unpack(">QqB", message[1:18])
        self.reached = max(self.reached, reached)
        if reply:
            self._replied = 0.0

    def confirm(self, applied: int, *, ask: bool = False, at_most_every_seconds: float = 0) -> None:
        """Tells the server what it may forget; ``ask`` for a word on how far it has read."""
        if time.monotonic() - self._replied < at_most_every_seconds:
            return
        self._replied = time.monotonic()
        moment = int((time.time() - _POSTGRES_EPOCH_SECONDS) * 1_000_000)
        self._libpq.put_copy_data(
            struct.pack(">cQQQqB", b"r", applied, applied, applied, moment, ask)
        )
        self._libpq.flush()

    async def arrival(self, timeout_seconds: float) -> None:
        """Waits until something arrives, or for the time given."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        socket = self._libpq.socket
        loop.add_reader(socket, arrived.set)
        try:
            async with asyncio.timeout(timeout_seconds):
                await arrived.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(socket)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
