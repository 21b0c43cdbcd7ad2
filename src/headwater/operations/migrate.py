"""Bringing a database to this version's schema: numbered SQL, a ledger, checksums.

The files of ``migrations/`` are applied in order, each in a transaction of its own, by an
administrator's login. A file that was applied and then edited is an error: released migrations are
never changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import AsyncConnection, sql

from headwater.errors import MigrationError, RoleMissing
from headwater.log.failures import translated
from headwater.log.statements import Statements

SQL = Statements("headwater.operations")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.statements.encode()).hexdigest()


def migrations() -> Iterator[Migration]:
    """The migrations of this version, in order."""
    folder = files("headwater.operations").joinpath("migrations")
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            yield Migration(int(number), name, file.read_text())


async def migrate(admin_url: str) -> list[Migration]:
    """Applies what the database lacks; returns it. Two at once wait for each other.

    ``admin_url`` is a login that may create roles and schemas. Raises MigrationError where the ledger
    and the files disagree, or where a statement fails; what was applied before stays.
    """
    with translated():
        connection = await AsyncConnection.connect(admin_url, autocommit=True, connect_timeout=10)
    async with connection:
        await connection.execute(SQL["migrate.lock"])
        applied = await _ledger(connection)
        done: list[Migration] = []
        for migration in migrations():
            if (known := applied.get(migration.number)) is not None:
                if known != migration.checksum:
                    raise MigrationError(
                        f"Migration {migration.number:04} was applied from another text.",
                        hint="Restore the released file; changes go into a new migration.",
                    )
                continue
            await _apply(connection, migration)
            done.append(migration)
        newest = max((m.number for m in migrations()), default=0)
        if ahead := [number for number in applied if number > newest]:
            raise MigrationError(
                f"The database is at migration {max(ahead)}, newer than this version's {newest}.",
                hint="Use the newer Headwater that migrated it.",
            )
        return done


async def create_login(
    admin_url: str, login: str, *, database_owner: bool = False, replication: bool = False
) -> None:
    """Creates a login that may take Headwater's three roles, and nothing else of its own.

    ``replication`` lets it read a replication slot. Such a login can read all that the server writes,
    whatever the tables' policies say, where pg_hba.conf lets it.
    """
    with translated():
        connection = await AsyncConnection.connect(admin_url, autocommit=True, connect_timeout=10)
    async with connection:
        row = await (
            await connection.execute(SQL["migrate.login_exists"], {"login": login})
        ).fetchone()
        if row is None:
            await connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS").format(
                    sql.Identifier(login)
                )
            )
        await connection.execute(
            sql.SQL("GRANT headwater_app, headwater_relay, headwater_operator TO {}").format(
                sql.Identifier(login)
            )
        )
        if replication:
            await connection.execute(
                sql.SQL("ALTER ROLE {} REPLICATION").format(sql.Identifier(login))
            )
        if database_owner:
            database = sql.Identifier(connection.info.dbname)
            await connection.execute(
                sql.SQL("GRANT CREATE ON DATABASE {} TO headwater_app").format(database)
            )


async def admit_application(admin_url: str, login: str) -> None:
    """Lets an application's own login append and read as headwater_app, with no SET ROLE of its own.

    Raises RoleMissing where there is no such login.
    """
    with translated():
        connection = await AsyncConnection.connect(admin_url, autocommit=True, connect_timeout=10)
    async with connection:
        exists = await connection.execute(SQL["migrate.login_exists"], {"login": login})
        if await exists.fetchone() is None:
            raise RoleMissing(
                f"There is no login {login!r}.",
                hint="Name the one that the application connects as.",
            )
        await connection.execute(sql.SQL("GRANT headwater_app TO {}").format(sql.Identifier(login)))


async def _ledger(connection: AsyncConnection) -> dict[int, str]:
    exists = await (await connection.execute(SQL["migrate.ledger_exists"])).fetchone()
    if exists is None or exists[0] is None:
        return {}
    cursor = await connection.execute(SQL["migrate.ledger"])
    return dict(await cursor.fetchall())


async def _apply(connection: AsyncConnection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            # A migration is a script of several statements: the project's own file, without parameters.
            await connection.execute(migration.statements.encode(), prepare=False)
            await connection.execute(
                SQL["migrate.record"],
                {
                    "number": migration.number,
                    "name": migration.name,
                    "checksum": migration.checksum,
                },
            )
    except psycopg.Error as error:
        raise MigrationError(
            f"Migration {migration.number:04}_{migration.name} failed: {error.diag.message_primary or error}.",
            hint=error.diag.message_hint
            or "It left nothing behind; mend the cause and run it again.",
        ) from error
