"""The ticker's decision against a model of transactions that draw, end and are missed."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headwater.log import Generations


class Transactions(RuleBasedStateMachine):
    """Any interleaving of transactions with a ticker's two statements, which may forget between."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0
        self.last_drawn = -1
        self.open: dict[str, int | None] = {}  # the first position that each drew
        self.read: int | None = None
        self.watermark = -1

    @initialize(max_pending=st.integers(1, 4))
    def begin_with(self, max_pending: int) -> None:
        self.max_pending = max_pending
        self.generations = Generations(max_pending)

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(name for name, first in self.open.items() if first is not None)

    @rule()
    def begin(self) -> None:
        self.started += 1
        self.open[f"3/{self.started}"] = None

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(1, 5))
    def draw(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        first = self.open[name]
        self.open[name] = self.last_drawn + 1 if first is None else first
        self.last_drawn += count

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        del self.open[data.draw(st.sampled_from(sorted(self.open)))]

    @rule()
    def read_position(self) -> None:
        self.read = self.last_drawn

    @precondition(lambda self: self.read is not None)
    @rule()
    def read_holders(self) -> None:
        decided = self.generations.observe(self.read, self.holders)
        self.read = None
        if decided is not None:
            assert decided > self.watermark or self.forgot
            self.watermark = max(self.watermark, decided)

    @rule()
    def forget(self) -> None:
        self.generations = Generations(self.max_pending)
        self.read = None

    @property
    def forgot(self) -> bool:
        return self.generations.published <= self.watermark

    @invariant()
    def nothing_undecided_is_published(self) -> None:
        undecided = [first for first in self.open.values() if first is not None]
        assert self.watermark < min(undecided, default=self.last_drawn + 1)

    @invariant()
    def little_is_remembered(self) -> None:
        if hasattr(self, "generations"):
            assert len(self.generations._pending) <= self.max_pending

    def teardown(self) -> None:
        """Liveness: once every transaction has ended, one tick publishes all."""
        if not hasattr(self, "generations"):
            return
        self.open.clear()
        self.generations.observe(self.last_drawn, frozenset())
        assert self.generations.published == self.last_drawn
        assert self.generations.settled


TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_a_generation_waits_for_its_own_holders_only():
    """However many begin later, what was drawn before them is published."""
    generations = Generations()
    assert generations.observe(10, frozenset({"slow"})) is None
    assert generations.observe(20, frozenset({"slow", "later"})) is None
    assert generations.observe(30, frozenset({"later", "latest"})) == 10
    assert generations.observe(30, frozenset({"latest"})) == 20
    assert not generations.settled
    assert generations.observe(30, frozenset()) == 30
    assert generations.settled


def test_the_oldest_holds_back_what_is_newer():
    generations = Generations()
    generations.observe(10, frozenset({"slow"}))
    assert [generations.observe(n, frozenset({"slow"})) for n in range(11, 20)] == [None] * 9
    assert generations.observe(20, frozenset()) == 20


@pytest.mark.parametrize("max_pending", [1, 2, 64])
def test_past_its_memory_it_is_coarser_and_still_waits(max_pending):
    generations = Generations(max_pending)
    for position in range(200):
        assert generations.observe(position, frozenset({"slow", str(position)})) is None
    assert generations.drawn == 199
    assert generations.observe(199, frozenset({"slow"})) is None
    assert generations.observe(199, frozenset()) == 199


def test_a_holder_seen_again_is_not_waited_for_twice():
    """Once gone from a tick, a name that comes back is another transaction's."""
    generations = Generations()
    generations.observe(10, frozenset({"one", "two"}))
    generations.observe(10, frozenset({"two"}))
    assert generations.observe(11, frozenset({"one"})) == 10


def test_nothing_new_decides_nothing():
    generations = Generations()
    assert generations.observe(5, frozenset()) == 5
    assert generations.observe(5, frozenset({"rolled back"})) is None
    assert generations.settled
