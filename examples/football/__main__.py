"""``python -m examples.football``: playback of every cup, a live match, and checks; ``--serve`` for the page."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from examples.football.generator import made_up
from examples.football.source import DataMissing, data_folder, world_cups
from examples.football.story import run
from examples.redis_process import redis, socket_of
from headwater import HeadwaterError


def main() -> int:
    """Exit code 0 where all checks pass.

    Engines are of its own and go at the end; HEADWATER_DATABASE_URL names another, empty, Postgres.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.football", description=__doc__)
    parser.add_argument("--serve", metavar="HOST:PORT", help="serve the live page in the end")
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="headwater-football-") as name:
        folder = Path(name)
        os.environ["HEADWATER_HOME"] = name
        os.environ["HEADWATER_STORE_REDIS_URL"] = f"unix://{socket_of(folder)}?db=0"
        try:
            data = data_folder()
            source = made_up() if data is None else world_cups(data)
            with redis(folder):
                return 0 if asyncio.run(run(console, source, asked.serve)) else 1
        except KeyboardInterrupt:
            return 0
        except (HeadwaterError, DataMissing) as error:
            console.print(f"The example stopped. {error}", markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())
