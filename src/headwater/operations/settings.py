"""Settings: from the environment, each with a default to go to production with."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from headwater.errors import SettingError
from headwater.log.database import Database
from headwater.operations.allowance import Allowance, Window
from headwater.operations.embedded import EmbeddedPostgres
from headwater.operations.migrate import create_login, migrate

EMBEDDED_DATABASE = "headwater"
EMBEDDED_LOGIN = "headwater_login"


_NOT_OURS = re.compile(r"(?!HEADWATER_)|HEADWATER_TEST_|HEADWATER_DATA$")
"""Other programs' variables, and those of tests and examples."""

_STORE = re.compile(r"HEADWATER_STORE_([A-Z][A-Z0-9_]*)_URL")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an installation may set. Each is read from the environment variable that it names."""

    database_url: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_DATABASE_URL",
            "about": "The Postgres (15 or newer) that holds the log, for a login made by `headwater init "
            "--login`. Empty: an embedded Postgres 18 in HEADWATER_HOME.",
        },
    )
    admin_database_url: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_ADMIN_DATABASE_URL",
            "about": "The same database for an administrator who may create roles; only `headwater init` "
            "uses it.",
        },
    )
    home: Path = field(
        default=Path(".headwater"),
        metadata={
            "variable": "HEADWATER_HOME",
            "about": "The folder of the embedded engines, Postgres and others.",
        },
    )
    app: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_APP",
            "about": "The app that commands work on: module:name, or a folder with a SELECT in each .sql file. "
            "Without one they know the log only.",
        },
    )
    replication_url: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_REPLICATION_URL",
            "about": "The same database for a login with REPLICATION, which reads the slot of tables captured "
            "by replication. Empty: HEADWATER_DATABASE_URL.",
        },
    )
    replication_max_wal_bytes: int = field(
        default=16 * 2**30,
        metadata={
            "variable": "HEADWATER_REPLICATION_MAX_WAL_BYTES",
            "about": "The most WAL that the slot may hold back: beyond it a relay drops the slot, and captures by "
            "replication are lost until a resync. Postgres's own cap, max_slot_wal_keep_size, holds without a relay too.",
        },
    )
    embedded_wal_level: str = field(
        default="replica",
        metadata={
            "variable": "HEADWATER_EMBEDDED_WAL_LEVEL",
            "about": "The embedded Postgres's wal_level: `replica`, or `logical` to capture tables by replication. "
            "It is followed when that server starts.",
        },
    )
    pool_size: int = field(
        default=10,
        metadata={
            "variable": "HEADWATER_POOL_SIZE",
            "about": "The most connections that a process opens in each role.",
        },
    )
    backfill_window: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_BACKFILL_WINDOW",
            "about": "The part of the day in which rebuilds and backfills go on, such as `22:00-06:00 Europe/Berlin`; "
            "outside it they pause. Empty: always.",
        },
    )
    backfill_rate: int = field(
        default=0,
        metadata={
            "variable": "HEADWATER_BACKFILL_RATE",
            "about": "The most events or rows a second that a rebuild or a backfill works through; 0: no limit.",
        },
    )
    backfill_lag_seconds: int = field(
        default=5,
        metadata={
            "variable": "HEADWATER_BACKFILL_LAG_SECONDS",
            "about": "Rebuilds and backfills pause while a live view is behind by more; 0: they never do.",
        },
    )
    master_key: str = field(
        default="",
        repr=False,
        metadata={
            "variable": "HEADWATER_MASTER_KEY",
            "about": "The keys that wrap persons' keys, NAME:KEY as `headwater keys new NAME` prints them, the newest "
            "first, commas between.",
        },
    )
    master_key_file: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_MASTER_KEY_FILE",
            "about": "A file with the same, one a line, instead.",
        },
    )
    signing_key: str = field(
        default="",
        repr=False,
        metadata={
            "variable": "HEADWATER_SIGNING_KEY",
            "about": "The key that signs who was forgotten, as `headwater keys signing` prints it. Operators need it, and relays that have the ledger.",
        },
    )
    forgotten_ledger: str = field(
        default="",
        metadata={
            "variable": "HEADWATER_FORGOTTEN_LEDGER",
            "about": "The file of who was forgotten, outside the database and its backups. A restored database is held to it.",
        },
    )
    verify_every_seconds: int = field(
        default=60,
        metadata={
            "variable": "HEADWATER_VERIFY_EVERY_SECONDS",
            "about": "How long relays wait before they compare a sample of the next view with the log; 0: they never do.",
        },
    )
    stores: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "variable": "HEADWATER_STORE_NAME_URL",
            "about": "Where the store that the app declares as `name` is, for each name.",
        },
    )

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings of the environment. Raises SettingError for what is unknown or malformed."""
        values: dict[str, object] = {}
        variables = {f.metadata["variable"]: f for f in fields(Settings)}
        stores: dict[str, str] = {}
        for variable, text in environment.items():
            if _NOT_OURS.match(variable):
                continue
            if (store := _STORE.fullmatch(variable)) is not None:
                stores[store[1].lower()] = text
                continue
            if (known := variables.get(variable)) is None:
                raise SettingError(
                    f"There is no setting {variable}.",
                    hint=f"The settings are {', '.join(variables)}.",
                )
            if known.name.endswith("_url"):
                _check_url(variable, text)
            values[known.name] = _CONVERT[known.name](text) if known.name in _CONVERT else text
        return Settings(stores=stores, **values)  # type: ignore[arg-type]

    def allowance(self, database: Database, say: Callable[[str], None]) -> Allowance:
        """When rebuilds and backfills may go on."""
        window = Window.of(self.backfill_window) if self.backfill_window else None
        return Allowance(database, window, self.backfill_rate, self.backfill_lag_seconds, say)

    def server(self, on_progress: Callable[[str], None] | None = None) -> Server:
        """The server that holds the log."""
        return Server(self, on_progress)


def _check_url(variable: str, text: str) -> None:
    try:
        conninfo_to_dict(text)
    except psycopg.Error as error:
        raise SettingError(
            f"{variable} is not a Postgres URL.",
            hint="Write postgresql://login:password@host:port/database.",
        ) from error


def _positive(variable: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise SettingError(f"{variable} is {text!r}.", hint="Use a whole number from 1.")
        return int(text)

    return convert


def _whole(variable: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit():
            raise SettingError(f"{variable} is {text!r}.", hint="Use a whole number from 0.")
        return int(text)

    return convert


def _window(text: str) -> str:
    if text:
        Window.of(text)
    return text


def _wal_level(text: str) -> str:
    if text not in {"replica", "logical"}:
        raise SettingError(
            f"HEADWATER_EMBEDDED_WAL_LEVEL is {text!r}.", hint="Use replica or logical."
        )
    return text


_CONVERT: dict[str, Callable[[str], object]] = {
    "home": Path,
    "pool_size": _positive("HEADWATER_POOL_SIZE"),
    "replication_max_wal_bytes": _positive("HEADWATER_REPLICATION_MAX_WAL_BYTES"),
    "embedded_wal_level": _wal_level,
    "backfill_window": _window,
    "backfill_rate": _whole("HEADWATER_BACKFILL_RATE"),
    "backfill_lag_seconds": _whole("HEADWATER_BACKFILL_LAG_SECONDS"),
    "verify_every_seconds": _whole("HEADWATER_VERIFY_EVERY_SECONDS"),
}


class Server:
    """The Postgres of an installation: a URL, or the embedded server, made ready when first opened."""

    def __init__(
        self, settings: Settings, on_progress: Callable[[str], None] | None = None
    ) -> None:
        self._settings = settings
        self._embedded: EmbeddedPostgres | None = None
        if not settings.database_url:
            self._embedded = EmbeddedPostgres(
                settings.home / "postgres",
                settings={"wal_level": settings.embedded_wal_level},
                on_progress=on_progress,
            )

    @property
    def url(self) -> str:
        """The URL for Headwater's login."""
        if self._embedded is None:
            return self._settings.database_url
        return self._embedded.url(EMBEDDED_DATABASE, user=EMBEDDED_LOGIN)

    @property
    def replication_url(self) -> str:
        """The URL for the login that reads the slot of tables captured by replication."""
        return self._settings.replication_url or self.url

    @property
    def admin_url(self) -> str:
        """The URL for an administrator. Raises SettingError where none is set."""
        if self._embedded is not None:
            return self._embedded.url(EMBEDDED_DATABASE)
        if not self._settings.admin_database_url:
            raise SettingError(
                "HEADWATER_ADMIN_DATABASE_URL is not set.",
                hint="Set it to the database's URL for a login that may create roles.",
            )
        return self._settings.admin_database_url

    async def open(self) -> None:
        """Joins or starts the embedded server, and brings its database to this version."""
        if self._embedded is None:
            return
        await asyncio.to_thread(self._embedded.start)
        await asyncio.to_thread(_ensure_database, self._embedded)
        await migrate(self.admin_url)
        await create_login(
            self.admin_url, EMBEDDED_LOGIN, database_owner=True,
            replication=self._settings.embedded_wal_level == "logical",
        )  # fmt: skip

    async def close(self) -> None:
        """Leaves the embedded server; the last to leave stops it."""
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.stop)


def _ensure_database(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('headwater.database', 0))")
        exists = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [EMBEDDED_DATABASE]
        )
        if exists.fetchone() is None:
            connection.execute(
                sql.SQL("CREATE DATABASE {}").format(sql.Identifier(EMBEDDED_DATABASE))
            )
