"""Views in Redis or Valkey."""

from headwater.stores.redis.store import Redis

__all__ = ["Redis"]
