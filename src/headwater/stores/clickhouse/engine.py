"""A connection to ClickHouse, and what its errors mean here.

The only module that imports the package ``clickhouse_connect``, and only when an app that uses the store is
opened.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from headwater.errors import ExtraMissing, LeaseLost, SettingError, StoreRefused, StoreUnavailable
from headwater.stores.clickhouse.embedded import Embedded
from headwater.stores.clickhouse.text import quoted, statement

if TYPE_CHECKING:
    from headwater.stores.clickhouse.rows import ClickHouseRows
    from headwater.stores.clickhouse.store import ClickHouse
    from headwater.stores.clickhouse.tables import ClickHouseTables

OLDEST = (25, 8)
DEDUPLICATED_BLOCKS = 10_000
_CODE = re.compile(r"[Cc]ode:?\s*(\d+)")
_REFUSED = {"192", "193", "194", "497", "516", "164", "291"}
_FULL = {"241", "243", "252"}
_EMBEDDED_DATABASE = "headwater"
_TIMEOUT_SECONDS = 120


class ClickHouseEngine:
    """One ClickHouse, shared by the views in it. ``database`` is where their tables are."""

    def __init__(self, store: ClickHouse, url: str) -> None:
        try:
            import clickhouse_connect
            from clickhouse_connect.driver.exceptions import ClickHouseError
        except ImportError as error:
            raise ExtraMissing(
                f"The store {store.name!r} needs the package clickhouse-connect.",
                hint="pip install 'headwater[clickhouse]'",
            ) from error
        self.store = store
        self.name = store.name
        self.every_seconds = store.every_seconds
        self._connect: Any = clickhouse_connect.get_client
        self._error = ClickHouseError
        self._client: Any = None
        self._connecting = threading.Lock()
        self._embedded: Embedded | None = None
        self._options = self._read(url)

    def _read(self, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        if parts.scheme == "chdb" and parts.path:
            self._embedded = Embedded(self.name, unquote(parts.path), self.store.idle_seconds)
            self.database = _EMBEDDED_DATABASE
            return {"host": "localhost", "port": 80, "username": "", "password": ""}
        self.database = unquote(parts.path.strip("/"))
        if parts.scheme not in {"http", "https"} or not parts.hostname or not self.database:
            raise SettingError(
                f"The store {self.name!r} has no URL, or one that is not ClickHouse's.",
                hint=f"Set HEADWATER_STORE_{self.name.upper()}_URL to "
                "http(s)://user:password@host:port/database or chdb:///folder.",
            )
        is_secure = parts.scheme == "https"
        return {
            "host": parts.hostname,
            "port": parts.port or (8443 if is_secure else 8123),
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or ""),
            "secure": is_secure,
        }

    @cached_property
    def rows(self) -> ClickHouseRows:
        """Where feeds' rows go."""
        from headwater.stores.clickhouse.rows import ClickHouseRows

        return ClickHouseRows(self)

    @cached_property
    def tables(self) -> ClickHouseTables:
        """Where SQL views are kept."""
        from headwater.stores.clickhouse.tables import ClickHouseTables

        return ClickHouseTables(self)

    # What statements say of this installation ----------------------------------------------------

    @property
    def on_cluster(self) -> str:
        """The clause that reaches all nodes, or nothing."""
        return f" ON CLUSTER {quoted(self.store.cluster)}" if self.store.cluster else ""

    @property
    def reading(self) -> str:
        """The settings by which a read on any replica sees what any other acknowledged."""
        return "SETTINGS select_sequential_consistency = 1" if self.store.cluster else ""

    def kind(self, engine: str, arguments: str = "") -> str:
        """A MergeTree, replicated where a cluster is declared."""
        return (
            f"Replicated{engine}({arguments})" if self.store.cluster else f"{engine}({arguments})"
        )

    @property
    def layout(self) -> str:
        """The settings of a table that recognises a block that it has."""
        window = "replicated" if self.store.cluster else "non_replicated"
        return f"{window}_deduplication_window = {DEDUPLICATED_BLOCKS}, allow_nullable_key = 1"

    def inserting(self, token: str | None = None) -> str:
        """The settings of an insert: one block, written before the answer, recognised by its token."""
        settings = {
            "async_insert": "0",
            "max_insert_threads": "1",
            "max_insert_block_size": "10000000",
            "min_insert_block_size_rows": "10000000",
            "min_insert_block_size_bytes": "0",
            "max_partitions_per_insert_block": "1",
            "materialized_views_ignore_errors": "0",
            # As Postgres writes it: NULL is empty, texts are taken as they are.
            "format_csv_null_representation": "''",
            "format_csv_allow_single_quotes": "0",
            "input_format_csv_trim_whitespaces": "0",
            "input_format_csv_empty_as_default": "1",
        }
        if token is not None:
            settings["insert_deduplicate"] = "1"
            settings["insert_deduplication_token"] = f"'{token}'"
            settings["deduplicate_blocks_in_dependent_materialized_views"] = "1"
        if self.store.cluster:
            settings["insert_quorum"] = "'auto'"
            settings["insert_quorum_parallel"] = "0"
        return "SETTINGS " + ", ".join(f"{name} = {value}" for name, value in settings.items())

    def table(self, *names: str) -> str:
        """A table of the database, its name of several parts."""
        return quoted(self.database, "/".join(names))

    @property
    def checkpoints(self) -> str:
        """The table of checkpoints."""
        return self.table("headwater_checkpoints")

    # Asking --------------------------------------------------------------------------------------

    async def run(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        data: bytes | None = None,
    ) -> None:
        """Runs a statement that answers nothing. Raises LeaseLost, StoreRefused and StoreUnavailable."""
        await self._call(lambda c: c.command(text, dict(parameters or {}), data=data))

    async def query(
        self, text: str, parameters: Mapping[str, Any] | None = None
    ) -> list[Sequence[Any]]:
        """The rows of a SELECT, as Python's values."""
        found: Any = await self._call(lambda c: c.query(text, dict(parameters or {})).result_rows)
        return list(found)

    async def named_rows(
        self, text: str, parameters: Mapping[str, Any]
    ) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        """The names of the columns of a SELECT, and its rows."""
        found: Any = await self._call(lambda c: c.query(text, dict(parameters)))
        return found.column_names, found.result_rows

    async def raw(self, text: str) -> bytes:
        """The answer to a SELECT in the format that it names."""
        answer: bytes = await self._call(lambda c: c.raw_query(text))
        return answer

    async def close(self) -> None:
        """Closes the connections; an owner ends by itself. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def _call(self, ask: Any) -> Any:
        def call() -> Any:
            with self._faults():
                return ask(self._connected())

        return await asyncio.to_thread(call)

    def _connected(self) -> Any:
        with self._connecting:
            if self._embedded is not None:
                self._embedded.ensure()
            if self._client is None:
                client = self._connect(
                    **self._options,
                    pool_mgr=_private(self._embedded) if self._embedded else None,
                    autogenerate_session_id=False, compress=False, tz_mode="aware",
                    send_receive_timeout=_TIMEOUT_SECONDS,
                )  # fmt: skip
                refuse(self.name, client.server_version)
                for text in self._preparations():
                    client.command(text)
                self._client = client
            return self._client

    def _preparations(self) -> Iterator[str]:
        engine = " ENGINE = Atomic" if self._embedded else ""
        yield statement(
            "checkpoints.create_database", database=quoted(self.database),
            on_cluster=self.on_cluster, engine=engine,
        )  # fmt: skip
        yield statement(
            "checkpoints.create", table=self.checkpoints, on_cluster=self.on_cluster,
            engine=self.kind("ReplacingMergeTree", "number"),
        )  # fmt: skip

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """ClickHouse's errors as Headwater's."""
        try:
            yield
        except self._error as error:
            raise self._translated(str(error)) from error
        except OSError as error:
            raise self._translated(str(error)) from error

    def _translated(self, said: str) -> Exception:
        if "headwater: the lease is lost" in said:
            return LeaseLost(f"Another relay has written to {self.name!r}.")
        code = found[1] if (found := _CODE.search(said)) else ""
        reason = said.strip().partition("\n")[0].rstrip(".")[:300]
        if code in _REFUSED:
            return StoreRefused(
                f"The store {self.name!r} refuses: {reason}.",
                hint="The login creates, alters, drops, reads and writes tables of the database.",
            )
        is_full = code in _FULL or "No space left on device" in said
        what = "is full" if is_full else "cannot be used now"
        return StoreUnavailable(
            f"The store {self.name!r} {what}: {reason}.",
            hint="Its views go on by themselves once it can.",
        )


def refuse(name: str, version: str) -> None:
    """Raises StoreRefused for a server that is too old."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise StoreRefused(
            f"The store {name!r} is ClickHouse {version}.",
            hint=f"Use {OLDEST[0]}.{OLDEST[1]} or newer.",
        )


def _private(embedded: Embedded) -> Any:
    """A pool of connections to an owner's socket."""
    from urllib3 import HTTPConnectionPool, PoolManager
    from urllib3.connection import HTTPConnection

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return embedded.connect(_TIMEOUT_SECONDS)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    manager = PoolManager(maxsize=8, block=False)
    manager.pool_classes_by_scheme = {"http": Pool}
    return manager
