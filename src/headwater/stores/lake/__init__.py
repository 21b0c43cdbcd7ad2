"""Feeds as Parquet in a folder or an object store."""

from headwater.stores.lake.merging import Merging
from headwater.stores.lake.store import Lake

__all__ = ["Lake", "Merging"]
