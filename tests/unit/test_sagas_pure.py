"""A saga's function against answers: no database."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
import saga_shop
from saga_shop import Charge, Paid, Placed, Receipt, Release, Reserve, Reserved, SoldOut

from headwater import App, Event, Saga, SagaFailed
from headwater.errors import NotDeterministic, SagaDefinitionError
from headwater.sagas.events import SagaStepDone
from headwater.testing.sagas import started


@pytest.fixture(scope="module")
def fulfil():
    return saga_shop.make("unused").sagas["fulfil"]


def seat(item, n=1):
    return Reserved(item, "1", n)


def test_given_when_then(fulfil):
    started(fulfil, Placed("1", "rw")).asks(Reserve("book", "1")).answer(seat("book")).asks(Paid).answer(Paid("p", "1")).ends()  # fmt: skip
    started(fulfil, Placed("1", "rx")).answer(seat("book")).answer(SoldOut("none")).ends(undoing=[Release("book", "1")])  # fmt: skip
    story = started(fulfil, Placed("1", "rw")).answer(seat("book"))
    with pytest.raises(AssertionError, match="has not ended: it asks for"):
        story.ends()
    with pytest.raises(AssertionError, match="asks for"):
        story.asks(Reserve("book", "1"))
    with pytest.raises(AssertionError, match="undoing None, not"):
        story.answer(Paid("p", "1")).ends(undoing=[Release("book", "1")])


def test_parallel_branches_meet_their_answers_in_any_order(fulfil):
    both = [Reserve("pen", "1"), Reserve("ink", "1")]
    story = started(fulfil, Placed("1", "p!")).asks(*both)
    story.answer(seat("ink"), step=2).answer(seat("pen"), step=1)
    story.ends(undoing=[Release("pen", "1"), Release("ink", "1")])


def test_a_call_that_may_have_had_its_effect_is_undone_or_handed_over(fulfil):
    started(fulfil, Placed("1", "c")).asks(("charge", Charge("1"))).fail().ends(
        undoing=["a person"]
    )
    started(fulfil, Placed("1", "c!")).answer(Receipt("r", 1)).ends(undoing=["refund"])


def test_a_wait_times_out(fulfil):
    started(fulfil, Placed("1", "t")).asks(Paid).time_out().ends()


def record(step, kind, name, asked="?"):
    return SagaStepDone("fulfil", "1", step, kind, name, asked, saga_shop_now())


def saga_shop_now():
    from headwater.testing.sagas import _BEGAN

    return _BEGAN


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record(1, "call", "charge")], r"Recorded is step 1 \(call charge\); now .*saga_shop\.py:\d+ asks for do Reserve"),
        ([record(1, "do", "Reserve", "other")], r"now .*saga_shop\.py:\d+ asks for the same with other data"),
        ([record(2, "do", "Ship")], r"Recorded is step 2 \(do Ship\); now the function waits at .*saga_shop\.py:\d+"),
    ],
)  # fmt: skip
def test_a_violation_names_the_line(fulfil, records, said):
    story = started(fulfil, Placed("1", "r"))
    with pytest.raises(NotDeterministic) as refused:
        for one in records:
            story.replay.feed(one)
    assert re.search(said, refused.value.message)
    assert "@saga.before(version)" in refused.value.hint


def test_a_function_that_ended_early_is_told(fulfil):
    story = started(fulfil, Placed("1", ""))
    with pytest.raises(NotDeterministic, match="now the function returns before it"):
        story.replay.feed(record(1, "do", "Reserve"))


class Began(Event, type="thing.began", stream="thing/{thing}"):
    thing: str


def saga_of(function, **options):
    return App("things", events=[Began]).saga(**options)(function)


async def test_what_is_no_step_is_refused():
    """A clock, a thread, a lock of the process: a replay would not meet them again."""

    async def sleeps(saga: Saga, began: Began) -> None:
        await asyncio.sleep(1)

    async def threads(saga: Saga, began: Began) -> None:
        await asyncio.to_thread(threading.get_ident)

    async def connects(saga: Saga, began: Began) -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    for function in (sleeps, threads, connects):
        with pytest.raises(NotDeterministic, match="not a step"):
            started(saga_of(function), Began("1")).ends()

    async def stands(saga: Saga, began: Began) -> None:
        await asyncio.get_running_loop().create_future()

    assert started(saga_of(stands), Began("1")).replay.stands
    await asyncio.sleep(0)  # the process's own loop goes on as ever


def test_chance_and_time_are_the_same_in_a_replay():
    drawn: list[object] = []

    async def draws(saga: Saga, began: Began) -> None:
        drawn.append((saga.now(), saga.uuid(), saga.uuid(), saga.random().random()))

    for _ in range(2):
        started(saga_of(draws), Began("1")).ends()
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4


def test_what_a_function_holds_is_put_away():
    """Put away where it waits, its finally is run and asks for nothing."""
    ended: list[str] = []

    async def holds(saga: Saga, began: Began) -> None:
        try:
            await saga.wait(Began, by="thing")
        finally:
            ended.append("finally")
            await saga.sleep(1)

    story = started(saga_of(holds), Began("1"))
    story.replay.dismiss()
    assert ended == ["finally"]
    assert not story.replay.saga.calls


def test_groups_of_failures_fail_the_saga(fulfil):
    async def grouped(saga: Saga, began: Began) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(saga.do(Reserve("none", "1")))
            group.create_task(saga.do(Reserve("book", "1"), undo=Release("book", "1")))

    story = started(saga_of(grouped), Began("1"))
    story.answer(SoldOut("none"), step=1)
    assert isinstance(story.replay.raised, BaseExceptionGroup)
    story.answer(seat("book"), step=2)  # its branch was cancelled, and it had its effect
    story.ends(undoing=[Release("book", "1")])


@pytest.mark.parametrize(
    "bad", ["blocking", "shape", "start", "key", "version", "twice", "earlier"]
)
def test_a_malformed_saga_is_refused(bad):
    app = App("things", events=[Began])

    def blocking(saga: Saga, began: Began) -> None: ...
    async def shape(saga, began): ...
    async def start(saga: Saga, began: str) -> None: ...
    async def fine(saga: Saga, began: Began) -> None: ...

    function = {"blocking": blocking, "shape": shape, "start": start}.get(bad, fine)
    options = {"key": {"key": "stream"}, "version": {"version": 0}}.get(bad, {})
    with pytest.raises(SagaDefinitionError):
        declared = app.saga(**options)(function)
        if bad == "twice":
            app.saga()(fine)
        if bad == "earlier":
            declared.before(1)(fine)


def test_an_explicit_failure_says_why(fulfil):
    story = started(fulfil, Placed("1", "!"))
    assert isinstance(story.replay.raised, SagaFailed)
    assert str(story.replay.raised) == "enough"
