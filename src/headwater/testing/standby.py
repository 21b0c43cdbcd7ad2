"""A standby of an embedded Postgres, for tests of failover: a streaming replica on the same machine."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from headwater.errors import EmbeddedPostgresError
from headwater.operations.embedded import Binaries, EmbeddedPostgres
from headwater.operations.embedded.guardian import PORT
from headwater.operations.embedded.placement import place

_SECONDS = 60.0


class Standby:
    """A replica that follows a primary while it runs: ``with Standby(primary, folder) as standby``.

    It can fall behind (``cut_off``) and be promoted. Every method raises EmbeddedPostgresError when it cannot do its work.
    """

    def __init__(
        self, primary: EmbeddedPostgres, folder: Path, *, binaries: Binaries | None = None
    ) -> None:
        self.primary = primary
        self.postgres = EmbeddedPostgres(
            folder, binaries=binaries, settings={"shared_buffers": "64MB"}
        )
        placement = place(folder)
        program = (binaries or Binaries.from_wheel()).folder / "pg_basebackup"
        copied = placement.account.run(
            [str(program), "-D", str(placement.data), "-R", "-X", "stream", "-c", "fast", "-d", primary.url()]
        )  # fmt: skip
        if copied.returncode != 0:
            raise EmbeddedPostgresError(
                f"The primary could not be copied: {copied.stderr or copied.stdout}",
                hint="Does it run, and is the folder empty?",
            )

    def __enter__(self) -> Self:
        self.postgres.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.postgres.stop()

    def url(self, database: str, *, user: str) -> str:
        """The standby's own address."""
        return self.postgres.url(database, user=user)

    def either_url(self, database: str, *, user: str) -> str:
        """The address of whichever of the two takes writes."""
        folders = (self.primary.socket_folder, self.postgres.socket_folder)
        hosts = ",".join(quote(str(folder), safe="") for folder in folders)
        return f"postgresql://{quote(user)}@/{quote(database)}?host={hosts}&port={PORT},{PORT}&target_session_attrs=read-write"

    def catch_up(self) -> None:
        """Waits until all that the primary has flushed is replayed."""
        with psycopg.connect(self.primary.url(), autocommit=True) as admin:
            row = admin.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        self._until("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row[0])

    def cut_off(self) -> None:
        """From now on it is sent nothing more."""
        with self._admin() as admin:
            admin.execute("ALTER SYSTEM SET primary_conninfo = ''")
            admin.execute("SELECT pg_reload_conf()")
        self._until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Makes it the primary; returns once it takes writes."""
        with self._admin() as admin:
            admin.execute("SELECT pg_promote(true, %s)", (int(_SECONDS),))

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self.postgres.url(), autocommit=True)

    def _until(self, condition: str, *parameters: object) -> None:
        deadline = time.monotonic() + _SECONDS
        with self._admin() as admin:
            while admin.execute(condition.encode(), parameters).fetchone() != (True,):
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"The standby is not where it should be after {_SECONDS:.0f} s.",
                        hint="See its log.",
                    )
                time.sleep(0.01)
