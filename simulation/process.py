"""The command ``headwater`` in a process of the simulation, broken if the simulation asks for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from headwater.entrances.cli.main import main
from simulation import doubles


def run(arguments: Sequence[str]) -> None:
    """Goes on as the command: what is broken, or nothing, then the command's arguments. Never returns."""
    broken, *sys.argv[1:] = arguments
    doubles.install(broken)
    main()
