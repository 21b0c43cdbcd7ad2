"""Strategies and runs: what may happen, which run it is, what it comes to, and a pointer that only moves forward."""

from __future__ import annotations

import asyncio
import random

import pytest

from examples.strategy.app import lab
from examples.strategy.backtest import START_CENTS, Parameters, Rules, backtest
from examples.strategy.domain import (
    Fork,
    Forked,
    NoRules,
    NotFinished,
    NotYours,
    Publish,
    Published,
    RunFinished,
    RunStarted,
    Save,
    Saved,
    StartRun,
    Unknown,
    fork_key,
    run_key,
)
from examples.strategy.results import Pointer, Results, encoded
from headwater.testing.deciding import given

CALM = Parameters()
RULES = Rules(5, 20, 10)
ID = run_key("s", 1, CALM, 7)
SAVED = Saved("me", "s", "web", "a", 5, 20, 10)
PUBLISHED = Published("me", "s", "web", "a", ID, 120)
FINISHED = RunFinished("me", "s", "web", "a", ID, f"results/s/{ID}.parquet", "0", 120, 30, 4)


def started(uid="me"):
    return RunStarted(uid, "s", "web", "a", ID, 1, RULES, CALM, 7, "free")


def start(uid="me", revision=1):
    return StartRun(uid, "s", "web", "a", ID, revision, CALM, 7, "free")


def publish(uid="me"):
    return Publish(uid, "s", "web", "a", ID)


def fork(uid="you", revision=1):
    return Fork(uid, "f", "web", "b", "s", revision)


FORKED = (Forked("you", "f", "web", "b", "s", 1), Saved("you", "f", "web", "b", 5, 20, 10))


@pytest.mark.parametrize(
    ("facts", "command", "then"),
    [
        ([], Save("me", "s", "web", "a", RULES), [SAVED]),
        ([SAVED], Save("you", "s", "web", "a", RULES), [NotYours()]),
        ([], Save("me", "s", "web", "a", Rules(20, 5, 0)), [NoRules()]),
        ([SAVED], start(), [started()]),
        ([SAVED, started()], start(), []),
        ([SAVED, started(), SAVED], start("you"), []),
        ([SAVED], start("you"), [NotYours()]),
        ([SAVED, PUBLISHED], start("you"), [started("you")]),
        ([SAVED, SAVED], start(), [Unknown(2)]),
        ([], start(), [Unknown(0)]),
        ([SAVED, started()], publish(), [NotFinished()]),
        ([SAVED, started(), FINISHED], publish(), [PUBLISHED]),
        ([SAVED, started(), FINISHED, PUBLISHED], publish(), []),
        ([SAVED, started(), FINISHED], publish("you"), [NotYours()]),
        ([SAVED], fork(), [NotYours()]),
        ([SAVED, PUBLISHED], fork(), FORKED),
        ([SAVED, PUBLISHED, *FORKED], fork(), []),
        ([SAVED, PUBLISHED, SAVED], fork(), [Unknown(2)]),
    ],
)
def test_what_may_happen(facts, command, then):
    given(lab(Results("memory:///")).app, *facts).when(command).then(*then)


def test_a_run_is_what_it_depends_on_and_nothing_else():
    assert run_key("s", 1, Parameters(days=250), 7) == ID
    others = {
        run_key("t", 1, CALM, 7), run_key("s", 2, CALM, 7), run_key("s", 1, Parameters(days=9), 7),
        run_key("s", 1, CALM, 8), fork_key("s", 1, "7"), ID,
    }  # fmt: skip
    assert len(others) == 6


def test_a_backtest_comes_out_the_same_to_the_byte():
    wild = Parameters(days=400, market="wild")
    one, other = (backtest(RULES, wild, 7) for _ in range(2))
    assert encoded(one) == encoded(other)
    assert (one.return_basis_points, one.drawdown_basis_points, one.trades) == (2254, 1291, 18)
    assert backtest(RULES, wild, 8) != one


@pytest.mark.parametrize("seed", range(20))
def test_money_is_never_made_of_nothing(seed):
    """At fees of a tenth, whoever trades a lot has less than whoever trades for nothing."""
    dear, free = (backtest(Rules(2, 5, fee), Parameters(), seed) for fee in (1000, 0))
    assert dear.money[0] == free.money[0] == START_CENTS
    assert dear.money[-1] <= free.money[-1]
    assert min(dear.money) >= 0


async def test_a_pointer_moves_forward_whoever_is_last():
    """Twenty writers at once, over a store that overwrites only what was read."""
    results = Results("memory:///")
    numbers = list(range(1, 21))
    random.Random(3).shuffle(numbers)
    moved = await asyncio.gather(*(results.point("s", Pointer(n, f"r{n}", "")) for n in numbers))
    assert moved[numbers.index(20)]
    assert (await results.latest("s")).number == 20
    assert await results.latest("other") is None


async def test_a_result_is_never_overwritten(tmp_path):
    results = Results(f"file://{tmp_path}/results")
    first, other = (backtest(RULES, CALM, seed) for seed in (1, 2))
    kept = await results.keep("s", "r", first)
    assert await results.keep("s", "r", other) == kept
    assert await results.read(kept[0]) == encoded(first)
