"""The strategy example, from a request to results everywhere, in processes that die on the way.

``python strategy_process.py URL FOLDER POINT...`` forks a process for each point, one after another. Each asks for a run of
its own, drives views and works on jobs, and is killed at its point; then the next one begins on what it left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from examples.strategy.app import Lab, lab
from examples.strategy.backtest import Parameters
from examples.strategy.domain import Plan, StartRun, run_key
from examples.strategy.results import Results
from headwater import Retry, Settings
from headwater.commands.deciding import Deciding
from headwater.jobs.desk import Desk
from headwater.jobs.taken import RunningJob
from headwater.stores.clickhouse.batches import ClickHouseBatches
from headwater.views.driving.fold import DrivenFold
from headwater.views.driving.record import ViewRecord

SID = "momentum"
STUCK_SECONDS = 30
PATIENT = Retry(attempts=100, first_seconds=0.1, factor=1)
"""A job that so many workers died of would be a dead letter else: here it is not to blame."""
PLANS: tuple[Plan, ...] = ("free", "paid", "priority")
DERIVING = ("work_to_do", "pointers")
IN_CLICKHOUSE = ("events", "ranking")
POINTS = (
    "before do", "after do",
    "before apply work_to_do", "after apply work_to_do",
    "before take", "after take",
    "before keep", "after keep",
    "before finish", "after finish",
    "before apply pointers", "after apply pointers",
    "before point", "after point",
    "before settle", "after settle",
    *(f"{step} {view}" for view in IN_CLICKHOUSE for step in (
        "after plan", "before put", "after put", "before advance", "after advance", "after move",
    )),
)  # fmt: skip
"""Every step between a request and its result in all stores, and what it is called in the code, below."""
_STEPS = {
    "do": (Deciding, "do"),
    "apply": (DrivenFold, "apply"),
    "take": (Desk, "_take"),
    "keep": (Results, "keep"),
    "finish": (RunningJob, "_finish"),
    "point": (Results, "point"),
    "settle": (Desk, "_settle"),
    "plan": (ViewRecord, "plan"),
    "put": (ClickHouseBatches, "put"),
    "advance": (ClickHouseBatches, "advance"),
    "move": (ViewRecord, "at_once"),
}


def at(url: str, folder: Path) -> Lab:
    """The example over a database, its other stores in a folder."""
    one = lab(Results(f"file://{folder}/results"), PATIENT)
    stores = {"analytics": f"chdb://{folder}/clickhouse"}
    one.app._settings = Settings(database_url=url, home=folder, stores=stores)
    return one


def asked(number: int) -> StartRun:
    """A run of the strategy. Its user is of this number too, so no job waits for another's lease."""
    plan, run_id = PLANS[number % len(PLANS)], run_key(SID, 1, Parameters(), number)
    return StartRun(f"{plan}-{number}", SID, "api", "a", run_id, 1, Parameters(), number, plan)


def die_at(point: str) -> None:
    """Kills this process at the first call of a step, of the view named, if one is."""
    when, step, *view = point.split()
    owner, method = _STEPS[step]
    real = getattr(owner, method)

    async def deadly(self, *arguments):
        of = (
            [arguments[0].place.view] if step in {"put", "advance"} else [getattr(self, "name", "")]
        )
        is_it = not view or of == view
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await real(self, *arguments)
        if is_it and (step != "take" or answer):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, method, deadly)


async def _work(url: str, folder: Path, point: str, number: int) -> None:
    die_at(point)
    one = at(url, folder)
    async with one.app:
        await one.app.do(asked(number))
        alone = [view for view in point.split() if view in IN_CLICKHOUSE]
        async with one.app.relay(*alone), one.app.working(lease_seconds=0.5):
            await asyncio.sleep(STUCK_SECONDS)


def _main(url: str, folder: Path, points: list[str]) -> None:
    for number, point in enumerate(points):
        if (pid := os.fork()) == 0:
            try:
                asyncio.run(_work(url, folder, point, number))
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), point, flush=True)
        if status != signal.SIGKILL:
            return


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
