"""The clients of one Kafka, the threads in which they block, and what their errors mean here.

The only module that imports the package ``confluent_kafka``, and only when an app that uses the bus is opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from headwater.errors import ExtraMissing, HeadwaterError, LeaseLost, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from headwater.stores.kafka.messages import KafkaMessages

Result = TypeVar("Result")

ASKING_SECONDS = 2.0
"""For questions: nothing depends on whether they were heard."""
_THREADS = 32
_silent = logging.getLogger("headwater.librdkafka")
_silent.propagate = False  # what fails is raised where it was asked for
_silent.addHandler(logging.NullHandler())
_READING = {
    "group.id": "headwater",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 10,
    "queued.max.messages.kbytes": 16_384,
    "max.poll.interval.ms": 86_400_000,
}
_UNREACHED = frozenset(
    {"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_AUTHENTICATION", "_SSL"}
)
_ANOTHERS = frozenset(
    {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING"}
)
_REFUSALS = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "POLICY_VIOLATION", "INVALID_CONFIG",
        "INVALID_REPLICATION_FACTOR", "TOPIC_EXCEPTION", "MSG_SIZE_TOO_LARGE", "_UNSUPPORTED_FEATURE",
        "INVALID_TRANSACTION_TIMEOUT", "UNSUPPORTED_VERSION",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Topics:
    """What topics are like that are created, and whether any is."""

    replicas: int | None
    keep_milliseconds: int | None
    keep_bytes: int | None
    max_message_bytes: int
    prepared: bool


class Heard:
    """What a client told last of its connections."""

    reason = ""

    def __call__(self, error: Any) -> None:
        if error.name() != "_ALL_BROKERS_DOWN" or not self.reason:
            self.reason = error.str()


class KafkaEngine:
    """One Kafka, shared by the publications and inboxes on it. Clients are made for each use, and connect again by themselves."""

    def __init__(self, name: str, settings: Mapping[str, str], topics: Topics) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise ExtraMissing(
                f"The store {name!r} needs the package confluent-kafka.",
                hint="pip install 'headwater[kafka]'",
            ) from error
        self.name = name
        self.topics = topics
        self.kafka: Any = confluent_kafka
        self._settings: dict[str, Any] = {**settings, "client.id": "headwater", "log_level": 0}
        self._threads: ThreadPoolExecutor | None = None

    @cached_property
    def messages(self) -> KafkaMessages:
        """Where publications' messages go."""
        from headwater.stores.kafka.messages import KafkaMessages

        return KafkaMessages(self)

    async def close(self) -> None:
        """Closes what is open and ends the threads. Idempotent."""
        await asyncio.to_thread(self.messages.close)
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    async def ask(self, question: Callable[[], Result]) -> Result:
        """What a function gives that blocks, in a thread. It goes on for its time where the asker is cancelled."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"kafka {self.name}")
        return await asyncio.get_running_loop().run_in_executor(self._threads, question)

    @contextmanager
    def consumer(self, **settings: Any) -> Iterator[Any]:
        """A consumer that no group coordinates. Raises StoreUnavailable and StoreRefused for what Kafka raises."""
        heard = Heard()
        wanted = {**self._settings, **_READING, **settings, "error_cb": heard}
        consumer = self.kafka.Consumer(wanted, logger=_silent)
        try:
            yield consumer
        except self.kafka.KafkaException as error:
            with suppress(self.kafka.KafkaException):
                consumer.poll(0)  # has what was heard told
            raise self.fault(error.args[0], heard.reason) from error
        finally:
            consumer.close()

    def producer(self, heard: Heard, **settings: Any) -> Any:
        """A producer, to be let go of; ``heard`` is told of its connections as it is polled."""
        wanted = {**self._settings, **settings, "error_cb": heard}
        return self.kafka.Producer(wanted, logger=_silent)

    @cached_property
    def administration(self) -> Any:
        """The part of the package that makes topics and reads their configurations."""
        from confluent_kafka import admin

        return admin

    def administrator(self) -> Any:
        """A client for that."""
        return self.administration.AdminClient(self._settings, logger=_silent)

    def fault(self, error: Any, reason: str = "") -> HeadwaterError:
        """What an error of Kafka's means here; ``reason`` is what was heard of the connections."""
        name, text = error.name(), error.str() or error.name()
        if name in _ANOTHERS:
            return LeaseLost(f"Another relay publishes to {self.name!r}: {text}.")
        if name in _REFUSALS:
            return StoreRefused(
                f"The store {self.name!r} refuses: {text}.",
                hint="The store's page says which rights the login needs, and which topics can be used.",
            )
        if name in _UNREACHED:
            return self.unreachable(reason or text)
        return StoreUnavailable(
            f"The store {self.name!r} cannot be used now: {text}.",
            hint="Its views go on by themselves once it can.",
        )

    def unreachable(self, reason: str) -> StoreUnavailable:
        """That it does not answer."""
        return StoreUnavailable(
            f"The store {self.name!r} cannot be reached: {reason}.",
            hint="Its views go on by themselves once it can.",
        )
