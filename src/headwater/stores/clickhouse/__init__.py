"""ClickHouse, or its engine in a process of its own: feeds and SQL views."""

from headwater.stores.clickhouse.store import ClickHouse

__all__ = ["ClickHouse"]
