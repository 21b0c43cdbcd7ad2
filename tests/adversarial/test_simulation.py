"""The simulation finds out what breaks a promise. Whole rounds under faults are run by `make simulate`."""

from __future__ import annotations

import pytest

from simulation.ground import ground
from simulation.rounds import play
from simulation.schedule import FAULTS, Schedule, draw

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]

SECONDS = 3.0
MOST_ROUNDS = 20


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
    assert {step.fault for one in schedules for step in one.steps} == {*FAULTS, ""}
    for one in schedules:
        assert Schedule.parse(one.text) == one
        assert list(one.steps) == sorted(one.steps)
