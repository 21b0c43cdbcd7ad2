"""The command line of the demo."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from examples.airport.data import DAYS, SourceMissing
from examples.airport.demo import Refused, run
from examples.airport.relay_process import RelayEnded
from examples.airport.replay import Overtaken
from examples.airport.shell import CommandFailed
from headwater import HeadwaterError

INTERRUPTED = 130


@click.command(help="Replays a year of New York flights on an embedded Postgres.")
@click.option(
    "--days",
    type=click.IntRange(1, DAYS),
    default=DAYS,
    show_default=True,
    help="How many days of the year to replay.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Where the database is. The report goes beside it, with the suffix .json.",
)
@click.option(
    "--fresh", is_flag=True, help="Remove what an earlier run left there, and start anew."
)
def main(days: int, folder: Path, fresh: bool) -> None:
    """Runs the demo; exit code 0 when all checks pass, 1 when one fails or the demo cannot run."""
    console = Console()
    try:
        with _alone_in(folder.resolve(), fresh=fresh):
            passed = asyncio.run(run(folder, days, console))
    except KeyboardInterrupt:
        console.print("\nInterrupted. The same command goes on where it was.")
        sys.exit(INTERRUPTED)
    except (Refused, RelayEnded, Overtaken, SourceMissing, CommandFailed, HeadwaterError) as error:
        console.print(f"[bold red]The demo stopped.[/] {error}", highlight=False)
        sys.exit(1)
    sys.exit(0 if passed else 1)


@contextmanager
def _alone_in(folder: Path, *, fresh: bool) -> Iterator[None]:
    """Makes the folder this run's alone, and the home of the app's embedded server."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"Another demo runs in {folder}. Wait for it, or pass --folder."
            ) from None
        if fresh:
            _remove_server(folder / "postgres")
            for store in ("clickhouse", "lake", "appendonlydir"):
                shutil.rmtree(folder / store, ignore_errors=True)
            (folder / "appendonly.aof").unlink(missing_ok=True)
        # The app reads its settings from the environment, here and in the relay's process.
        os.environ.pop("HEADWATER_DATABASE_URL", None)
        os.environ["HEADWATER_HOME"] = str(folder)
        yield


def _remove_server(folder: Path) -> None:
    """Removes an embedded server's data, which the file ``location`` may say is elsewhere."""
    location = folder / "location"
    if location.exists():
        shutil.rmtree(location.read_text().strip(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
