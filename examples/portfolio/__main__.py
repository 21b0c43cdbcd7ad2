"""``python -m examples.portfolio``: the worked example, then a day of many traders, with checks."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

from rich.console import Console

from examples.portfolio.story import run
from headwater import HeadwaterError


def main() -> int:
    """Exit code 0 where all checks pass. Without HEADWATER_DATABASE_URL, on a Postgres of its own that goes at the end."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="headwater-portfolio-") as folder:
        os.environ["HEADWATER_HOME"] = folder
        try:
            return 0 if asyncio.run(run(console)) else 1
        except HeadwaterError as error:
            console.print(f"The example stopped. {error}")
            return 1


if __name__ == "__main__":
    sys.exit(main())
