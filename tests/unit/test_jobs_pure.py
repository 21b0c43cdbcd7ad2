"""What jobs decide without a database: fair shares, waits, planned times."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import JobDefinitionError
from headwater.jobs import JobRate, Queue, Retry, Schedule
from headwater.jobs.fairness import Lanes
from headwater.log.enqueuing import Enqueue

NOTHING = Enqueue(queue="q", job="j", arguments=msgspec.Raw(b"{}"))


class Simulation:
    """Processes that share a queue's lanes as workers do: each has its own stride, the queue is one."""

    def __init__(self, weights, processes, slots, seed):
        self.random = Random(seed)
        self.waiting = dict.fromkeys(weights, 0)
        self.lanes = [Lanes(weights) for _ in range(processes)]
        self.slots = [slots] * processes
        self.started = []  # (time, lane)
        self.under_way = []  # (end, process)
        self.now = 0.0

    def take(self, process, cap=math.inf):
        lanes, room = self.lanes[process], int(min(self.slots[process], cap - len(self.under_way)))
        if room <= 0:
            return
        wanted, counts = lanes.wanted(room), Counter()
        for turn in (1, 2):
            for lane, share in wanted.items():
                count = min(share if turn == 1 else room, self.waiting[lane], room)
                self.waiting[lane] -= count
                counts[lane] += count
                room -= count
        if counts.total():
            lanes.taken(counts, wanted)
        for lane, count in counts.items():
            for _ in range(count):
                self.slots[process] -= 1
                self.started.append((self.now, lane))
                self.under_way.append((self.now + self.random.uniform(0.5, 1.5), process))

    def step(self, cap=math.inf):
        """Whoever has a free place takes; then the next job ends."""
        for process in self.random.sample(range(len(self.lanes)), len(self.lanes)):
            self.take(process, cap)
        if self.under_way:
            self.under_way.sort()
            self.now, process = self.under_way.pop(0)
            self.slots[process] += 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    processes=st.integers(1, 4),
    slots=st.integers(1, 12),
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
def test_full_lanes_share_by_weight_and_none_is_starved(seed, processes, slots, weights):
    named = dict(zip("abc", map(float, weights), strict=True))
    simulation = Simulation(named, processes, slots, seed)
    simulation.waiting = dict.fromkeys(named, 10_000)
    while len(simulation.started) < 1_500:
        simulation.step()
    counts, total = Counter(lane for _, lane in simulation.started), len(simulation.started)
    for lane, weight in named.items():
        share = total * weight / sum(named.values())
        assert abs(counts[lane] - share) <= 2 * processes * slots + 5, (lane, counts, share)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), processes=st.integers(1, 4), slots=st.integers(2, 12))
def test_a_flood_delays_no_lane_that_was_empty(seed, processes, slots):
    """Paid jobs that come into a flood start with the places that are freed next, at least every second one."""
    simulation = Simulation({"free": 1.0, "paid": 8.0}, processes, slots, seed)
    simulation.waiting["free"] = 100_000
    for _ in range(simulation.random.randrange(50, 400)):
        simulation.step()
    simulation.waiting["paid"] = 5
    at = len(simulation.started)
    while simulation.waiting["paid"]:
        simulation.step()
    assert len(simulation.started) - at <= 10 + processes


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), processes=st.integers(1, 4), cap=st.integers(1, 6))
def test_no_more_run_than_the_cap_and_infinite_weight_goes_first(seed, processes, cap):
    simulation = Simulation({"urgent": math.inf, "free": 1.0}, processes, 4, seed)
    simulation.waiting["free"] = 1_000
    for n in range(300):
        if n % 10 == 0:
            simulation.waiting["urgent"] += 1
        before = simulation.waiting["urgent"]
        room = cap - len(simulation.under_way)
        at = len(simulation.started)
        simulation.step(cap)
        assert len(simulation.under_way) <= cap
        first = [lane for _, lane in simulation.started[at:]][: min(before, room)]
        assert set(first) <= {"urgent"}
    assert Counter(lane for _, lane in simulation.started)["free"]


def test_retries_wait_longer_each_time_and_no_longer_than_stated():
    retry = Retry(first_seconds=1, factor=3, longest_seconds=60, jitter=0.5)
    assert [retry.delay(n, 0) for n in range(1, 7)] == [1, 3, 9, 27, 60, 60]
    assert retry.delay(2, 1) == 1.5
    assert retry.delay(10**9, 0) == 60


def test_what_is_not_well_defined_is_refused():
    for wrong in (
        lambda: Queue("Mail"),
        lambda: Queue("mail", weights={}),
        lambda: Queue("mail", weights={"free": 0}),
        lambda: Queue("mail", cap=0),
        lambda: JobRate(0),
        lambda: Schedule("s", NOTHING),
        lambda: Schedule("s", NOTHING, cron="* * * * *", every_seconds=5),
        lambda: Schedule("s", NOTHING, cron="61 * * * *"),
        lambda: Schedule("s", NOTHING, cron="0 0 31 2 *"),
        lambda: Schedule("s", NOTHING, cron="* * * * *", zone="Mars/Olympus"),
        lambda: Schedule("s", NOTHING, every_seconds=0.1),
    ):
        with pytest.raises(JobDefinitionError):
            wrong()


def planned(schedule, start, count):
    found = []
    for _ in range(count):
        start = schedule.after(start)
        found.append(start)
    return found


def test_a_nightly_run_is_once_a_night_when_clocks_change():
    nightly = Schedule("s", NOTHING, cron="30 2 * * *", zone="Europe/Berlin")
    berlin = ZoneInfo("Europe/Berlin")
    spring = planned(nightly, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert [t.astimezone(berlin).strftime("%d %H:%M") for t in spring] == ["29 03:00", "30 02:30"]
    autumn = planned(nightly, datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert [t.astimezone(berlin).strftime("%d %H:%M") for t in autumn] == ["25 02:30", "26 02:30"]
    hourly = planned(Schedule("s", NOTHING, cron="0 * * * *", zone="Europe/Berlin"), datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 4)  # fmt: skip
    assert [b - a for a, b in pairwise(hourly)] == [timedelta(hours=1)] * 3


@given(
    every=st.integers(1, 100_000),
    late=st.integers(0, 1_000_000),
    start=st.integers(10**9, 2 * 10**9),
)
def test_what_is_missed_follows_the_policy(every, late, start):
    begin = datetime.fromtimestamp(start, UTC)
    one = {m: Schedule("s", NOTHING, every_seconds=every, missed=m, late_seconds=0.5) for m in ("skip", "once", "all")}  # fmt: skip
    due = one["all"].after(begin)
    now = due + timedelta(seconds=late)
    run, following = one["all"].turn(due, now)
    assert (run, following) == (due, due + timedelta(seconds=every))
    run, following = one["once"].turn(due, now)
    assert due <= run <= now < following == run + timedelta(seconds=every)
    skipped, same = one["skip"].turn(due, now)
    assert same == following
    assert skipped == (run if (now - run).total_seconds() <= 0.5 else None)


def test_jitter_only_delays_and_is_bounded():
    schedule = Schedule("s", NOTHING, every_seconds=60, jitter_seconds=10)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert schedule.due(at, 0) == at
    assert schedule.due(at, 0.5) == at + timedelta(seconds=5)
    assert all(at <= schedule.due(at) <= at + timedelta(seconds=10) for _ in range(50))
