"""A whole installation under faults keeps its promises, and what breaks one is found out."""

from __future__ import annotations

import pytest

from simulation.ground import ground
from simulation.rounds import play
from simulation.schedule import FAULTS, Schedule, Step, draw

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial, pytest.mark.xdist_group("simulation")]

SECONDS = 3.0
MOST_ROUNDS = 20
CRASHES = (
    Step(1.0, "kill", "holder of fast", "kill a lease holder"),
    Step(1.3, "kill", "worker-0", "kill a process"),
    Step(1.6, "restart", "postgres", "Postgres restarts at once"),
    Step(2.2, "kill", "redis", "Redis is down"),
    Step(2.6, "kill", "load-python", "kill a process"),
    Step(2.8, "start", "load-python", "kill a process"),
)


async def test_an_installation_under_faults_keeps_every_promise():
    async with ground() as made:
        played = await play(made, Schedule("test", SECONDS, CRASHES))
    assert not played.failures, played.report
    assert played.events
    assert played.jobs


async def test_what_is_broken_is_caught():
    """The two doubles that need no fault at a certain moment; the others take minutes and are run by hand."""
    async with ground() as made:
        for number in range(MOST_ROUNDS):
            schedule = draw(f"caught/{number}", SECONDS, faults=0)
            played = await play(made, schedule, "reader,deduplication")
            promises = {found.promise.partition(":")[2].strip() for found in played.failures}
            if len(promises) == 2:
                break
    assert promises == {"a reader sees every event", "nothing is in the log twice"}, played.report


def test_a_schedule_follows_from_its_seed_and_survives_a_file():
    schedules = [draw(f"s/{number}", 9.0) for number in range(50)]
    assert schedules == [draw(f"s/{number}", 9.0) for number in range(50)]
    assert {step.fault for one in schedules for step in one.steps} == set(FAULTS)
    for one in schedules:
        assert Schedule.parse(one.text) == one
        assert list(one.steps) == sorted(one.steps)
