"""Four services place orders while services, NATS and Postgres are killed; a small part of what `make services` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.postgres, pytest.mark.adversarial]

ROOT = Path(__file__).parents[2]
SECONDS = 400


def test_the_books_of_four_services_agree_whatever_is_killed():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    options = ["--seed=1", "--orders=40", "--rate=10", "--faults=6", "--pause-seconds=0.3", "--stopped-seconds=1", "--nats=1", "--postgres=1", "--patience-seconds=240"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "simulation.services", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout, done.stdout
    assert done.stdout.endswith("All books agree.\n")
    kinds = ("a service killed", "a service stopped", "a NATS node killed", "a NATS node stopped", "a Postgres server killed", "messages told again")  # fmt: skip
    assert [kind for kind in kinds if kind not in done.stdout] == []
