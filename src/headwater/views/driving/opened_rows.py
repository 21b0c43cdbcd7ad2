"""Opens the declared fields of a feed's rows, on their way from the log to the store.

The rows never become objects: Postgres marks the texts that are to be opened, and they are replaced in its CSV.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from psycopg import sql

from headwater.errors import SettingError
from headwater.events import EventType
from headwater.events.personal import key_of
from headwater.personal import FORGOTTEN
from headwater.personal.opener import Opener
from headwater.views.driving.record import SQL
from headwater.views.feed import Feed
from headwater.views.opening import Opened


class OpenedRows:
    """What one feed opens. The mark is drawn by chance, so that no text can pretend to be marked."""

    def __init__(self, feed: Feed, opener: Opener | None) -> None:
        self._feed = feed
        self._opener = opener
        self._mark = f"open-{secrets.token_hex(12)}-"
        self._marked = re.compile(
            rb"%b(\d+):([0-9a-f]*):(hw1[.A-Za-z0-9_-]+)" % self._mark.encode()
        )

    def expressions(self, type_name: str) -> Sequence[tuple[sql.Composable, str]]:
        """Each column's SQL, Headwater's own, made from the type's schema, and its type."""
        columns = self._feed.columns[type_name]
        (declared,) = (t for t in self._feed.types if t.name == type_name)
        return [
            (
                self._marking(column.expression)
                if column.name in self._opened(declared)
                else sql.SQL(column.expression),
                column.sql_type,
            )
            for column in columns
        ]

    def _opened(self, declared: EventType) -> set[str]:
        return set(self._feed.opens) & set(declared.personal)

    def _marking(self, expression: str) -> sql.Composable:
        return sql.SQL(SQL["feed.marked"]).format(
            expression=sql.SQL(expression), marker=sql.Literal(self._mark)
        )

    async def opened(self, data: bytes) -> tuple[bytes, tuple[Opened, ...]]:
        """CSV with the marked texts in clear, and which rows hold them.

        Raises KeyUnavailable, and SettingError where there is no master key.
        """
        if not self._feed.opens or self._mark.encode() not in data:
            return data, ()
        if self._opener is None:
            raise SettingError("Nothing opens personal fields here.", hint="Use the view of an open app.")  # fmt: skip
        by_tenant: dict[bytes, set[str]] = {}
        for found in self._marked.finditer(data):
            by_tenant.setdefault(found[2], set()).add(found[3].decode())
        clear: dict[tuple[bytes, bytes], str] = {}
        for tenant, texts in by_tenant.items():
            name = bytes.fromhex(tenant.decode()).decode()
            for text, said in (await self._opener.opened(name, texts)).items():
                clear[tenant, text.encode()] = said
        rows: dict[Opened, None] = {}

        def replaced(found: re.Match[bytes]) -> bytes:
            said = clear[found[2], found[3]]
            if said is not FORGOTTEN:
                tenant = bytes.fromhex(found[2].decode()).decode()
                rows[Opened(key_of(found[3].decode()), tenant, found[1].decode())] = None
            return b'"%b"' % said.replace('"', '""').encode()

        return self._marked.sub(replaced, data), tuple(rows)
