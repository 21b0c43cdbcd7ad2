"""Topics: made where they are missing, looked at where they are there. It blocks."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from headwater.errors import StoreRefused, StoreUnavailable
from headwater.stores.kafka.engine import ASKING_SECONDS
from headwater.stores.kafka.reading import partitions_of, refuse_other_shapes
from headwater.views.messages import Channel

if TYPE_CHECKING:
    from headwater.stores.kafka.engine import KafkaEngine

_PROGRESS_MILLISECONDS = 3_600_000
_MAKING_SECONDS = 10.0
_LOOK_SECONDS = 0.05


def prepare(engine: KafkaEngine, channel: Channel) -> int:
    """Sees to a channel's two topics; how many bytes a message may have.

    Raises StoreRefused where one is there that cannot be used, and StoreUnavailable.
    """
    topics = engine.topics
    with engine.consumer() as consumer:
        names = (channel.progress, channel.stream)
        shapes = {name: partitions_of(engine, consumer, name) for name in names}
        missing = [name for name in names if not shapes[name]]
        if missing and topics.prepared:
            raise StoreRefused(
                f"The topic {missing[0]!r} does not exist, and the store {engine.name!r} makes none.",
                hint="Make it with one partition and without compaction.",
            )
        if missing:
            _make(engine, {name: _wanted(engine, channel, name) for name in missing})
            deadline = time.monotonic() + _MAKING_SECONDS
            while any(not partitions_of(engine, consumer, name) for name in missing):
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"The topic {missing[0]!r} is made, and not there yet.")
                time.sleep(_LOOK_SECONDS)
    for name in names:
        if shapes[name]:
            refuse_other_shapes(name, shapes[name])
    return topics.max_message_bytes if topics.prepared else _looked_at(engine, channel.stream)


def _wanted(engine: KafkaEngine, channel: Channel, name: str) -> dict[str, str]:
    """The configuration of a topic to make."""
    if name == channel.progress:
        return {"cleanup.policy": "delete", "retention.ms": str(_PROGRESS_MILLISECONDS)}
    topics = engine.topics
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(topics.keep_milliseconds or -1),
        "retention.bytes": str(topics.keep_bytes or -1),
        "max.message.bytes": str(topics.max_message_bytes),
    }


def _make(engine: KafkaEngine, wanted: dict[str, dict[str, str]]) -> None:
    new = engine.administration.NewTopic
    replicas = engine.topics.replicas or -1
    made = engine.administrator().create_topics(
        [new(name, 1, replicas, config=config) for name, config in wanted.items()],
        request_timeout=_MAKING_SECONDS,
    )
    for future in made.values():
        _result(engine, future, ignored="TOPIC_ALREADY_EXISTS")


def _looked_at(engine: KafkaEngine, topic: str) -> int:
    """How many bytes a message of a topic may have. Raises StoreRefused where messages vanish from within it."""
    resource = engine.administration.ConfigResource("topic", topic)
    asked = engine.administrator().describe_configs([resource], request_timeout=ASKING_SECONDS)
    (found,) = (_result(engine, future) for future in asked.values())
    if "compact" in found["cleanup.policy"].value:
        raise StoreRefused(
            f"The topic {topic!r} is compacted: of each key only the newest message is kept.",
            hint="Set its cleanup.policy to delete.",
        )
    return int(found["max.message.bytes"].value)


def _result(engine: KafkaEngine, future: Future[Any], *, ignored: str = "") -> Any:
    try:
        return future.result(_MAKING_SECONDS)
    except engine.kafka.KafkaException as error:
        if error.args[0].name() == ignored:
            return None
        raise engine.fault(error.args[0]) from error
    except TimeoutError as error:
        raise engine.unreachable("it does not answer questions about topics") from error
