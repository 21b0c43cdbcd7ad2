"""The declaration of a Redis store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headwater.errors import SettingError
from headwater.stores.redis.engine import RedisEngine
from headwater.views.store import Transform


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis (6.2 or newer) or Valkey; ``HEADWATER_STORE_<NAME>_URL`` says where."""

    name: str
    kind: ClassVar[str] = "redis"
    transforms: ClassVar[frozenset[Transform]] = frozenset({"fold", "index"})

    def engine(self, url: str) -> RedisEngine:
        """The engine at a URL. Raises ExtraMissing and SettingError."""
        variable = f"HEADWATER_STORE_{self.name.upper()}_URL"
        if not url:
            raise SettingError(
                f"The store {self.name!r} has no URL.",
                hint=f"Set {variable} to redis://host:port/0, rediss://... or unix:///path.",
            )
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise SettingError(
                f"{variable} is not a URL of Redis.",
                hint="Write redis://login:password@host:port/0, rediss://... or unix:///path.",
            )
        return RedisEngine(self.name, url)
