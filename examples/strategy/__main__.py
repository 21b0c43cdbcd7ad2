"""``python -m examples.strategy``: strategies are saved, run, published, forked and ranked, with checks."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from examples.strategy.results import Results
from examples.strategy.story import run
from headwater import HeadwaterError


def main() -> int:
    """Exit code 0 where all checks pass.

    Postgres, ClickHouse and the folder of results are of its own and go at the end. HEADWATER_DATABASE_URL names another,
    empty, Postgres, and STRATEGY_RESULTS_URL an empty bucket.
    """
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="headwater-strategy-", ignore_cleanup_errors=True) as folder:  # fmt: skip
        os.environ["HEADWATER_HOME"] = folder
        results = os.environ.get("STRATEGY_RESULTS_URL", f"file://{Path(folder) / 'results'}")
        try:
            return 0 if asyncio.run(run(console, Results(results))) else 1
        except HeadwaterError as error:
            console.print(f"The example stopped. {error}", markup=False)
            return 1


if __name__ == "__main__":
    sys.exit(main())
