"""Publications in Kafka."""

from headwater.stores.kafka.store import Kafka

__all__ = ["Kafka"]
