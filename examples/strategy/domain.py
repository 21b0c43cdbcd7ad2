"""What happens to strategies and their runs, and what may happen. Pure: no I/O."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct

from examples.strategy.backtest import Parameters, Rules
from headwater import Command, Document, Event, Rejection
from headwater.events import Cast, Computed, Default, Remove

Plan = Literal["free", "paid", "priority"]
Source = Literal["web", "api"]

# Facts -----------------------------------------------------------------------------------------


class Told(Struct):
    """What every fact says for those who count: who, of which strategy, from where, in which arm of a test."""

    uid: str
    sid: str
    source: Source
    ab: str


class Saved(
    Told,
    Event,
    type="strategy.saved",
    stream="strategy/{sid}",
    version=3,
    upcasts={
        1: [Default("fee_percent", "0.10"), Default("source", "web"), Default("ab", "none")],
        2: [
            Computed("fee_basis_points", "round(fee_percent * 100)", {"fee_percent": Decimal}),
            Cast("fee_basis_points", int),
            Remove("fee_percent"),
        ],
    },
):
    """The strategy's document, in its third shape. Those of before are in ``earlier.py``, and read as this one."""

    fast: int
    slow: int
    fee_basis_points: int
    run_id: str | None = None


class Forked(Told, Event, type="strategy.forked", stream="strategy/{sid}"):
    """A strategy began as another one was."""

    origin: str
    revision: int
    run_id: str | None = None


class Published(Told, Event, type="strategy.published", stream="strategy/{sid}"):
    """The owner shows what a run came to. From now on others may run and fork the strategy."""

    run_id: str
    return_basis_points: int


class RunStarted(Told, Event, type="run.started", stream="run/{run_id}"):
    """Somebody wants to know. It says all that the run depends on, so a worker reads nothing else."""

    run_id: str
    revision: int
    rules: Rules
    parameters: Parameters
    seed: int
    plan: Plan


class RunFinished(Told, Event, type="run.finished", stream="run/{run_id}"):
    """The result is there: ``object`` is its key, ``sha256`` is of its bytes."""

    run_id: str
    object: str
    sha256: str
    return_basis_points: int
    drawdown_basis_points: int
    trades: int


class RankingRecomputed(Event, type="ranking.recomputed", stream="ranking/{ranking}"):
    """The nightly batch: the rows that came out of history, and those that had been otherwise."""

    ranking: str
    rows: int
    differed: int


# What follows from facts -----------------------------------------------------------------------


class Strategy(Document):
    """A strategy as it is now. ``revision`` counts its documents."""

    owner: str = ""
    revision: int = 0
    rules: Rules | None = None
    published: str | None = None


class Run(Document):
    """A run, by its facts."""

    started: RunStarted | None = None
    finished: RunFinished | None = None


class Latest(Document):
    """A strategy's last result; ``number`` counts them, and only grows."""

    number: int = 0
    run_id: str = ""
    object: str = ""
    return_basis_points: int = 0


def strategy_so_far(state: Strategy, event: Saved | Published) -> Strategy:
    """A strategy after an event."""
    if isinstance(event, Published):
        return state.but(published=event.run_id)
    rules = Rules(event.fast, event.slow, event.fee_basis_points)
    return state.but(owner=event.uid, revision=state.revision + 1, rules=rules)


def run_so_far(state: Run, event: RunStarted | RunFinished) -> Run:
    """A run after an event."""
    return state.but(started=event) if isinstance(event, RunStarted) else state.but(finished=event)


def latest_so_far(state: Latest, event: RunFinished) -> Latest:
    """A strategy's results are numbered in the log's order."""
    return Latest(state.number + 1, event.run_id, event.object, event.return_basis_points)


# What may happen -------------------------------------------------------------------------------


class Save(Command, stream="strategy/{sid}"):
    """Write a strategy's first or next document."""

    uid: str
    sid: str
    source: Source
    ab: str
    rules: Rules


class StartRun(Command, stream="run/{run_id}"):
    """Run a revision of a strategy. ``run_id`` is ``run_key`` of what it depends on."""

    uid: str
    sid: str
    source: Source
    ab: str
    run_id: str
    revision: int
    parameters: Parameters
    seed: int
    plan: Plan


class Publish(Command, stream="strategy/{sid}"):
    """Show a result."""

    uid: str
    sid: str
    source: Source
    ab: str
    run_id: str


class Fork(Command, stream="strategy/{sid}"):
    """Begin a strategy as another one is. ``sid`` is ``fork_key`` of whose it is, and of what."""

    uid: str
    sid: str
    source: Source
    ab: str
    origin: str
    revision: int


class NotYours(Rejection, frozen=True):
    """The strategy is another's, and not published."""


class Unknown(Rejection, frozen=True):
    """There is no such strategy, or it has no such revision now."""

    revision: int


class NotFinished(Rejection, frozen=True):
    """There is no such run of this strategy, or no result of it yet."""


class NoRules(Rejection, frozen=True):
    """The slow mean must be over more days than the fast one."""


def run_key(sid: str, revision: int, parameters: Parameters, seed: int) -> str:
    """Which run it is. The same strategy, parameters and seed are the same run, whoever asks, and however often."""
    return _key("run", sid, revision, parameters, seed)


def fork_key(origin: str, revision: int, uid: str) -> str:
    """Which fork it is: a user forks a revision once."""
    return _key("fork", origin, revision, uid)


def _key(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:24]


def _told(command: Save | StartRun | Publish | Fork) -> tuple[str, str, Source, str]:
    return command.uid, command.sid, command.source, command.ab


def save(state: Strategy, command: Save) -> Saved | NotYours | NoRules:
    """The owner's, and whoever comes first."""
    rules = command.rules
    if state.owner not in {"", command.uid}:
        return NotYours()
    if rules.fast >= rules.slow:
        return NoRules()
    return Saved(*_told(command), rules.fast, rules.slow, rules.fee_basis_points)


def start_run(
    run: Run, strategy: Strategy, command: StartRun
) -> RunStarted | NotYours | Unknown | None:
    """Nothing where the run is there already, whatever became of the strategy since."""
    if run.started is not None:
        return None
    if strategy.rules is None or strategy.revision != command.revision:
        return Unknown(strategy.revision)
    if strategy.published is None and strategy.owner != command.uid:
        return NotYours()
    return RunStarted(
        *_told(command), command.run_id, command.revision, strategy.rules,
        command.parameters, command.seed, command.plan,
    )  # fmt: skip


def publish(
    strategy: Strategy, run: Run, command: Publish
) -> Published | NotYours | NotFinished | None:
    """Only what has a result, by the owner, once in a row."""
    if strategy.owner != command.uid:
        return NotYours()
    if run.finished is None or run.finished.sid != command.sid:
        return NotFinished()
    if strategy.published == command.run_id:
        return None
    return Published(*_told(command), command.run_id, run.finished.return_basis_points)


def fork(
    state: Strategy, origin: Strategy, command: Fork
) -> list[Forked | Saved] | NotYours | Unknown:
    """A strategy that is published, or one's own. Nothing where the fork is there."""
    if state.rules is not None:
        return []
    if origin.rules is None or origin.revision != command.revision:
        return Unknown(origin.revision)
    if origin.published is None and origin.owner != command.uid:
        return NotYours()
    rules, told = origin.rules, _told(command)
    return [
        Forked(*told, command.origin, command.revision),
        Saved(*told, rules.fast, rules.slow, rules.fee_basis_points),
    ]
