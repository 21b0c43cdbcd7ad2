"""What a URL says of how to reach Kafka, and what comes in by a topic is noticed to be lost, without a broker."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from headwater.errors import SettingError, StoreUnavailable
from headwater.stores.kafka.address import settings_of
from headwater.stores.kafka.listening import Listening
from headwater.stores.kafka.marks import headers_for
from headwater.views.messages import Channel, Mark, Message, Progress

CHANNEL = Channel("headwater-shop-orders", "headwater.shop.orders")


def test_a_url_names_brokers_and_who_logs_in():
    assert settings_of("kafka://a:9092, b.example.org", "V") == {
        "bootstrap.servers": "a:9092,b.example.org",
        "security.protocol": "PLAINTEXT",
    }
    url = "kafka+ssl://ada:a%40b%3Ac@a:9093,[::1]:9093?mechanism=scram-sha-512&ca=/etc/ca.pem"
    assert settings_of(url, "V") == {
        "bootstrap.servers": "a:9093,[::1]:9093",
        "ssl.ca.location": "/etc/ca.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ada",
        "sasl.password": "a@b:c",
        "security.protocol": "SASL_SSL",
    }


@pytest.mark.parametrize(
    "url",
    [
        "nats://ada:secret@here:4222",
        "kafka://",
        "kafka://ada:secret@",
        "kafka://ada:secret@here:9092/topic",
        "kafka://ada:secret@here:9092?acks=0",
        "kafka://ada:secret@here:port",
        "kafka://ada:secret@[here",
        "kafka://ada:secret@here:9092",
        "kafka+ssl://ada:secret@here:9092?mechanism=GSSAPI",
    ],
)
def test_other_urls_are_refused_and_never_shown(url):
    with pytest.raises(SettingError, match="HEADWATER_STORE_BUS_URL") as refused:
        settings_of(url, "HEADWATER_STORE_BUS_URL")
    assert "secret" not in f"{refused.value} {refused.value.hint} {refused.value.__context__}"


def record(offset):
    message = Message("s", Mark("log", 1, 1, 1, offset * 10, "e"), b"{}", 0)
    headers = [(name, value.encode()) for name, value in headers_for(message).items()]
    return SimpleNamespace(
        error=lambda: None, topic=lambda: CHANNEL.stream, offset=lambda: offset,
        headers=lambda: headers, value=lambda: message.body,
    )  # fmt: skip


def told(sequence):
    body = msgspec.json.encode(Progress("log", 1, sequence, 1_000))
    return SimpleNamespace(error=lambda: None, topic=lambda: CHANNEL.progress, value=lambda: body)


@pytest.fixture
async def listening():
    return Listening(SimpleNamespace(name="bus"), CHANNEL, 4)


async def test_offsets_may_have_gaps_but_never_go_back(listening):
    assert [listening._took(record(offset)).sequence for offset in (4, 9)] == [5, 10]
    with pytest.raises(StoreUnavailable, match="out of order"):
        listening._took(record(9))


async def test_a_topic_that_does_not_come_on_though_publishers_are_heard_is_noticed(listening):
    assert listening._took(told(5)).upto == 1_000
    listening._look(100.0)
    listening._look(106.0)
    listening._took(record(4))
    listening._look(107.5)
    listening._took(told(6))
    listening._look(108.0)
    with pytest.raises(StoreUnavailable, match="longer than"):
        listening._look(115.0)


async def test_what_is_not_progress_is_passed_by(listening):
    strange = SimpleNamespace(
        error=lambda: None, topic=lambda: CHANNEL.progress, value=lambda: b"hello"
    )
    assert listening._took(strange) is None
