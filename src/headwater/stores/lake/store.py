"""The declaration of a lake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from headwater.errors import SettingError
from headwater.stores.lake.engine import LakeEngine
from headwater.stores.lake.merging import Merging
from headwater.views.store import Transform


@dataclass(frozen=True, slots=True)
class Lake:
    """Parquet below a URL; ``HEADWATER_STORE_<NAME>_URL`` says which.

    ``every_seconds`` is how long a feed that has caught up waits for more before it writes the next
    objects: fewer and larger ones, seen later. ``merging`` says when small files become one.
    """

    name: str
    every_seconds: float = 2.0
    merging: Merging = field(default_factory=Merging)
    kind: ClassVar[str] = "lake"
    transforms: ClassVar[frozenset[Transform]] = frozenset({"feed"})

    def engine(self, url: str) -> LakeEngine:
        """The engine at a URL. Raises ExtraMissing and SettingError."""
        if "://" not in url:
            raise SettingError(
                f"The store {self.name!r} has no URL.",
                hint=f"Set HEADWATER_STORE_{self.name.upper()}_URL to file:///path or s3://bucket/prefix.",
            )
        return LakeEngine(self.name, url, self.every_seconds, self.merging)
