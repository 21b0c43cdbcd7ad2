"""The declaration of a ClickHouse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from headwater.stores.clickhouse.engine import ClickHouseEngine
from headwater.views.store import Transform


@dataclass(frozen=True, slots=True)
class ClickHouse:
    """A ClickHouse server by URL, or its engine embedded; ``HEADWATER_STORE_<NAME>_URL`` says which.

    ``order_by`` names fields by which the tables of feeds are sorted, after the tenant, where a type has
    them; others by their stream. ``keep_months`` drops a feed's months that are older. ``cluster`` names a
    cluster: tables are replicated and created on all its nodes. ``every_seconds`` is how long a view that
    has caught up waits for more, so that parts are not too many and small.
    """

    name: str
    order_by: tuple[str, ...] = ()
    keep_months: int | None = None
    cluster: str | None = None
    every_seconds: float = 0.5
    idle_seconds: float = 300.0
    kind: ClassVar[str] = "clickhouse"
    transforms: ClassVar[frozenset[Transform]] = frozenset({"feed", "sql"})

    def embedded_url(self, home: Path) -> str:
        """The URL of an engine below a folder."""
        return f"chdb://{home.expanduser().resolve()}/clickhouse/{self.name}"

    def engine(self, url: str) -> ClickHouseEngine:
        """The engine at a URL. Raises ExtraMissing and SettingError."""
        return ClickHouseEngine(self, url)
