"""The declaration of a Kafka bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headwater.stores.kafka.address import settings_of
from headwater.stores.kafka.engine import KafkaEngine, Topics
from headwater.views.store import Transform


@dataclass(frozen=True, slots=True)
class Kafka:
    """A Kafka (2.5 or newer); ``HEADWATER_STORE_<NAME>_URL`` says where.

    ``replicas`` (None: as the brokers say), ``keep_seconds``, ``keep_bytes`` and ``max_message_bytes`` are of topics that
    are created; those that are there keep what they have. With ``prepared`` none is created and no configuration
    is asked for: an operator makes the topics, and ``max_message_bytes`` says what they take.
    """

    name: str
    replicas: int | None = None
    keep_seconds: float | None = None
    keep_bytes: int | None = None
    max_message_bytes: int = 1_000_000
    prepared: bool = False
    kind: ClassVar[str] = "kafka"
    transforms: ClassVar[frozenset[Transform]] = frozenset({"messages"})

    def engine(self, url: str) -> KafkaEngine:
        """The engine at a URL. Raises ExtraMissing and SettingError."""
        topics = Topics(
            replicas=self.replicas,
            keep_milliseconds=None if self.keep_seconds is None else int(self.keep_seconds * 1_000),
            keep_bytes=self.keep_bytes,
            max_message_bytes=self.max_message_bytes,
            prepared=self.prepared,
        )
        return KafkaEngine(
            self.name, settings_of(url, f"HEADWATER_STORE_{self.name.upper()}_URL"), topics
        )
