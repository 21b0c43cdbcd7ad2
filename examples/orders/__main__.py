"""``python -m examples.orders``: four services, NATS, some orders, and checks. ``--fail`` injects failures."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from examples.orders.services import running

FAILURES = ("sold-out", "declined", "bank", "kill")


def main() -> int:
    """Exit code 0 where all checks pass. Servers and databases are the example's own, and go at the end."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders", description=__doc__)
    parser.add_argument("--orders", type=int, default=60)
    parser.add_argument("--fail", action="append", choices=FAILURES, default=[], help="may be given several times; all of them by default")  # fmt: skip
    parser.add_argument("--well", action="store_true", help="no failures")
    asked = parser.parse_args()
    failures = () if asked.well else tuple(asked.fail) or FAILURES
    with tempfile.TemporaryDirectory(prefix="hw-orders-") as name:
        os.environ.setdefault("HEADWATER_HOME", name)
        os.environ["ORDERS_FAIL"] = ",".join(failures)
        with running(Path(name)) as services:
            # What the services' settings are made of is in the environment from here on.
            from examples.orders.story import run

            console = Console(highlight=False, soft_wrap=True)
            return 0 if asyncio.run(run(console, services, asked.orders, failures)) else 1


if __name__ == "__main__":
    sys.exit(main())
