"""What comes by a consumer of NATS, without a server: what is lost on its way, or comes in another order, is noticed."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from headwater.errors import StoreUnavailable
from headwater.stores.nats.listening import Listening
from headwater.stores.nats.marks import headers_for
from headwater.views.messages import Channel, Mark, Message, Progress

CHANNEL = Channel("headwater-shop-orders", "headwater.shop.orders")


def sent(sequence, number, *, domain=""):
    message = Message("s", Mark("log", 1, 1, 1, sequence * 10, "e"), b"{}", 0)
    reply = f"$JS.ACK.{domain}headwater-shop-orders.c.1.{sequence}.{number}.17.0{'.token' if domain else ''}"
    return SimpleNamespace(
        headers=headers_for(message), reply=reply, subject="s", data=message.body
    )


@pytest.fixture
def listening():
    found = Listening(SimpleNamespace(name="bus"), CHANNEL)
    found._asked = 100
    return found


@pytest.mark.parametrize("domain", ["", "hub.account."])
async def test_sequences_may_have_gaps(listening, domain):
    for sequence, number in ((4, 1), (9, 2)):
        await listening._heard(sent(sequence, number, domain=domain))
    assert [one.sequence for one in await listening.next()] == [4, 9]


@pytest.mark.parametrize("numbers", [(1, 3), (1, 1), (2, 1)])
async def test_what_is_lost_doubled_or_turned_round_on_its_way_ends_it(listening, numbers):
    for number in numbers:
        await listening._heard(sent(number, number))
    if numbers[0] == 1:
        assert [one.sequence for one in await listening.next()] == [1]
    with pytest.raises(StoreUnavailable, match="lost on its way"):
        await listening.next()


async def test_what_was_told_before_the_end_is_handed_on_first(listening):
    await listening._heard(sent(1, 1))
    gone = SimpleNamespace(headers={"Status": "409", "Description": "Consumer Deleted"}, reply="")
    await listening._heard(gone)
    assert [one.sequence for one in await listening.next()] == [1]
    with pytest.raises(StoreUnavailable, match="Consumer Deleted"):
        await listening.next()


def told(sequence):
    progress = Progress("log", 1, sequence, 1_000)
    return SimpleNamespace(data=msgspec.json.encode(progress))


@pytest.mark.parametrize(
    ("announced", "silent", "behind", "why"),
    [(1, 9, 0, "sends nothing"), (2, 0, 9, "longer than"), (2, 5, 5, None), (1, 0, 9, None)],
)
async def test_a_consumer_that_is_gone_is_noticed_though_publishers_are_heard(
    listening, announced, silent, behind, why
):
    await listening._heard(sent(1, 1))
    assert await listening.next()
    listening._alive_at -= silent
    await listening._heard_progress(told(announced))
    listening._look()
    if listening._behind_at is not None:
        listening._behind_at -= behind
    listening._look()
    assert [one.upto for one in await listening.next()] == [1_000]
    assert (why or "None") in str(listening._fault)
