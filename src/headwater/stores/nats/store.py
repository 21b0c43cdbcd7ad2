"""The declaration of a NATS bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headwater.errors import SettingError
from headwater.stores.nats.engine import NatsEngine
from headwater.views.store import Transform


@dataclass(frozen=True, slots=True)
class Nats:
    """A NATS (2.12 or newer) with JetStream; ``HEADWATER_STORE_<NAME>_URL`` says where.

    ``replicas`` (1, 3 or 5), ``keep_seconds`` and ``keep_bytes`` are of streams that are created; those that are
    there keep what they have.
    """

    name: str
    replicas: int = 1
    keep_seconds: float | None = None
    keep_bytes: int | None = None
    kind: ClassVar[str] = "nats"
    transforms: ClassVar[frozenset[Transform]] = frozenset({"messages"})

    def engine(self, url: str) -> NatsEngine:
        """The engine at a URL, or at several of one cluster parted by commas.

        Raises ExtraMissing and SettingError.
        """
        servers = [one.strip() for one in url.split(",") if one.strip()]
        variable = f"HEADWATER_STORE_{self.name.upper()}_URL"
        if not servers or any(not one.startswith(("nats://", "tls://")) for one in servers):
            raise SettingError(
                f"{variable} is not a URL of NATS.",
                hint=f"Set {variable} to nats://login:password@host:4222 or tls://..., several parted by commas.",
            )
        return NatsEngine(
            self.name,
            servers,
            {
                "num_replicas": self.replicas,
                "max_age": int((self.keep_seconds or 0) * 1_000_000_000),
                "max_bytes": self.keep_bytes or -1,
            },
        )
