"""The command ``headwater`` in a process of the simulation, broken or doomed if the simulation asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

import time_machine

from headwater.entrances.cli.main import main
from headwater.running import Running
from headwater.testing.faults import die_at, die_in_saga, die_working
from simulation import doubles

JUMP = signal.SIGUSR1


def run(arguments: Sequence[str]) -> None:
    """Goes on as the command: what is broken, or nothing, where it dies, or nothing, then the command's arguments. Never returns."""
    broken, doom, *sys.argv[1:] = arguments
    doubles.install(broken)
    if doom:
        _doom(doom)
    let_clock_jump()
    main()


def let_clock_jump() -> None:
    """From now on this process's clock jumps at a signal, by the seconds that the file ``SIMULATION_JUMP`` names."""
    signal.signal(JUMP, _jump)


def _jump(_: int, __: FrameType | None) -> None:
    with open(os.environ["SIMULATION_JUMP"], encoding="ascii") as file:  # noqa: PTH123 - in a signal's handler
        seconds = float(file.read())
    time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True).start()


def _doom(text: str) -> None:
    """Makes this process kill itself at a point: ``view NAME: POINT: call N``, ``job: ...`` or ``saga: ...``."""
    what, point, call = text.split(": ")
    at_call = int(call.removeprefix("call "))
    if what == "job":
        die_working(point, at_call=at_call)
    elif what == "saga":
        die_in_saga(point, at_call=at_call)
    else:
        _doom_view(what.removeprefix("view "), point, at_call)


def _doom_view(name: str, point: str, at_call: int) -> None:
    sound = Running.views

    def views(self: Running, *arguments: Any) -> dict[str, Any]:
        found = sound(self, *arguments)
        die_at(found[name], point, at_call=at_call)
        return found

    setattr(Running, "views", views)  # noqa: B010 - a double, in this process alone
