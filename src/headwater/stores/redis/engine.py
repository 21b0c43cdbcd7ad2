"""Connections to one Redis, what it must be, and what its errors mean here.

The only module that imports the package ``redis``, and only when an app that uses the store is opened.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headwater.errors import ExtraMissing, HeadwaterError, LeaseLost, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from headwater.stores.redis.documents import RedisDocuments

_OLDEST = (6, 2)
_TIMEOUT_SECONDS = 5.0
_MAX_CONNECTIONS = 20
_REWRITTEN_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_WRITING = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
_PASSING = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|NOSCRIPT|MISCONF|UNBLOCKED)\b"
)


class RedisEngine:
    """One Redis, shared by the views in it. Connects when first used."""

    def __init__(self, name: str, url: str) -> None:
        try:
            from redis import asyncio as client
            from redis import exceptions
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ExtraMissing(
                f"The store {name!r} needs the package redis.",
                hint="pip install 'headwater[redis]'",
            ) from error
        self.name = name
        self._exceptions: Any = exceptions
        # No retries here: a write whose answer was lost is asked about by reading the checkpoint.
        self.client: Any = client.Redis.from_pool(
            client.BlockingConnectionPool.from_url(
                url,
                max_connections=_MAX_CONNECTIONS,
                timeout=_TIMEOUT_SECONDS,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                client_name="headwater",
            )
        )

    @cached_property
    def documents(self) -> RedisDocuments:
        """Where folds' documents go."""
        from headwater.stores.redis.documents import RedisDocuments

        return RedisDocuments(self)

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        await self.client.aclose()

    async def check(self) -> None:
        """Refuses a server that is too old, or that may evict views. Raises StoreRefused."""
        with self.faults():
            refuse(self.name, await self.client.info("server"), await self.client.info("memory"))

    async def rewrite(self) -> str:
        """Writes the files of the server anew; what stays, where some does."""
        stays = f"In the files of the store {self.name!r}, until it writes them anew (BGREWRITEAOF, BGSAVE)."
        try:
            with self.faults():
                began = await self.client.info("persistence")
                if began.get("aof_enabled"):
                    await self.client.bgrewriteaof()
                elif began.get("rdb_last_save_time") or began.get("rdb_saves"):
                    await self.client.bgsave()
        except HeadwaterError:
            return stays  # one that is under way, or a login that may not
        deadline = time.monotonic() + _REWRITTEN_SECONDS
        while time.monotonic() < deadline:
            with self.faults():
                now = await self.client.info("persistence")
            if not any(now.get(name) for name in _WRITING):
                return ""
            await asyncio.sleep(_LOOK_SECONDS)
        return stays

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Redis's errors as Headwater's."""
        known = self._exceptions
        try:
            yield
        except (known.AuthenticationError, known.NoPermissionError) as error:
            raise StoreRefused(
                f"The store {self.name!r} refuses the login: {error}.",
                hint="Give it all commands on keys headwater:*, INFO and scripts.",
            ) from error
        except known.OutOfMemoryError as error:
            raise StoreUnavailable(
                f"The store {self.name!r} is full.",
                hint="Raise maxmemory or move views; they go on by themselves.",
            ) from error
        except (known.ConnectionError, known.TimeoutError, OSError) as error:
            raise StoreUnavailable(
                f"The store {self.name!r} cannot be reached: {error}.",
                hint="Its views go on by themselves once it can.",
            ) from error
        except known.ResponseError as error:
            raise self._answered(str(error)) from error

    def _answered(self, text: str) -> Exception:
        if "HWLEASE" in text:
            return LeaseLost(f"The data in {self.name!r} is not where this batch begins.")
        if "OOM command" in text:  # from inside a script, before its first write
            return StoreUnavailable(
                f"The store {self.name!r} is full.",
                hint="Raise maxmemory or move views; they go on by themselves.",
            )
        if _PASSING.search(text):
            return StoreUnavailable(f"The store {self.name!r} cannot write now: {text}.")
        return StoreRefused(f"The store {self.name!r} refuses a batch: {text}.")


def refuse(name: str, server: Mapping[str, Any], memory: Mapping[str, Any]) -> None:
    """Raises StoreRefused for a server that is too old, or that may evict views."""
    version = str(server.get("redis_version", "0"))
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < _OLDEST:
        raise StoreRefused(
            f"The store {name!r} is Redis {version}.", hint="Use Redis 6.2 or newer, or Valkey."
        )
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys-"):
        raise StoreRefused(
            f"The store {name!r} may evict views: its maxmemory-policy is {policy}.",
            hint="Set it to noeviction, or to a volatile policy: views' keys never expire.",
        )
