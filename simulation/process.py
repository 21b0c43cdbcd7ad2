"""The command ``headwater`` in a process of the simulation, broken if the simulation asks for it.

``python -m simulation.process BROKEN ARGUMENTS...``; ``-`` for a sound one.
"""

from __future__ import annotations

import sys

from headwater.entrances.cli.main import main
from simulation import doubles

if __name__ == "__main__":
    broken = sys.argv.pop(1)
    doubles.install("" if broken == "-" else broken)
    main()
