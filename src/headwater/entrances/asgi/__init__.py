"""For an application's own endpoints, in FastAPI or Starlette."""

from headwater.entrances.asgi.idempotency import Idempotency, Once
from headwater.entrances.asgi.rate_limits import RateLimits
from headwater.entrances.asgi.refusals import refusals

__all__ = ["Idempotency", "Once", "RateLimits", "refusals"]
