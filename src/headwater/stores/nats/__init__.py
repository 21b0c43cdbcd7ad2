"""Publications in NATS JetStream."""

from headwater.stores.nats.store import Nats

__all__ = ["Nats"]
