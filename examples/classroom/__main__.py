"""``python -m examples.classroom``: classes at work, who sees what, and checks; ``--serve`` for the page."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from examples.classroom.story import Size, run
from examples.redis_process import redis, socket_of
from headwater import HeadwaterError
from headwater.entrances.http.server import run as run_fast
from headwater.personal import MasterKeys
from headwater.personal.signing import Signer


def main() -> int:
    """Exit code 0 where all checks pass.

    Engines and keys are of its own and go at the end; HEADWATER_DATABASE_URL names another, empty, Postgres.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.classroom", description=__doc__)
    parser.add_argument("--serve", metavar="HOST:PORT", help="serve the page in the end")
    parser.add_argument("--small", action="store_true", help="two small classes for a few seconds, and no check of times")  # fmt: skip
    asked = parser.parse_args()
    size = Size(2, 6, 3.0, 0.15, target=False) if asked.small else Size()
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="headwater-classroom-") as name:
        folder = Path(name)
        os.environ |= {
            "HEADWATER_HOME": name,
            "HEADWATER_STORE_REDIS_URL": f"unix://{socket_of(folder)}?db=0",
            "HEADWATER_MASTER_KEY": MasterKeys.new("m1"),
            "HEADWATER_SIGNING_KEY": Signer.new(),
            "HEADWATER_FORGOTTEN_LEDGER": str(folder / "forgotten"),
        }
        try:
            with redis(folder):
                return 0 if run_fast(run(console, size, asked.serve)) else 1
        except KeyboardInterrupt:
            return 0
        except HeadwaterError as error:
            console.print(f"The example stopped. {error}", markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())
