"""One run of one contestant: a process of its own session, which ends with all that it started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from race.contestants import Contestant
from race.environments import Environment

ROOT = Path(__file__).parent.parent
LIMIT_SECONDS = 300.0
LAST_LINES = 12


class RunFailed(Exception):
    """A contestant did not print its figures: what it said last."""


def command_of(
    name: str, contestant: Contestant, environment: Environment, discipline: str
) -> list[str]:
    """The program and its script, without the URL and the work."""
    if contestant.kind == "node":
        script = ROOT / "race/work" / f"{discipline}_{name}.mjs"
        return [str(environment.program), str(script), str(environment.folder)]
    return [str(environment.program), "-m", f"race.work.{discipline}", name]


def run(
    name: str,
    contestant: Contestant,
    environment: Environment,
    discipline: str,
    url: str,
    work: Mapping[str, int],
) -> dict[str, float]:
    """The figures that a contestant prints as its last line. Raises RunFailed."""
    folder = environment.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = [str(ROOT)]
    if not contestant.packages:  # Headwater itself: from where this process has it
        path += [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    output, errors = folder / "output.txt", folder / "errors.txt"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [*command_of(name, contestant, environment, discipline), url, json.dumps(dict(work))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
        try:
            ended = _wait(process.pid)
        finally:
            _end(process)
    if not ended:
        raise RunFailed(f"took longer than {LIMIT_SECONDS:.0f} s\n{_last(errors)}")
    if process.returncode != 0:
        raise RunFailed(f"ended with {process.returncode}\n{_last(errors)}")
    try:
        return msgspec.json.decode(_last(output).splitlines()[-1], type=dict[str, float])
    except (IndexError, msgspec.MsgspecError) as error:
        raise RunFailed(f"printed no figures: {error}\n{_last(errors)}") from None


def _wait(process: int) -> bool:
    """Whether a child ended in time. It is left to be reaped, so that its id stays its own."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the contestant and what it started: its group, whose id cannot be another's before the leader is reaped."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-LAST_LINES:])
