"""The command line as a second person uses it, beside the demo: shown as typed, then run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Any, Self

from rich.console import Console

START_SECONDS = 60


class CommandFailed(Exception):
    """A command of the demo's own failed, and its output says why."""


class Shell:
    """Runs ``headwater`` in a folder's environment and shows both sides."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run(self, *arguments: str, shown: int = 6) -> str:
        """A command to its end. Raises CommandFailed."""
        self.say("headwater", *arguments)
        done = subprocess.run(
            _command(*arguments), capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode:
            raise CommandFailed(f"headwater {' '.join(arguments)}: {done.stderr or done.stdout}")
        for line in done.stdout.splitlines()[:shown]:
            self.console.print(f"    {line}", style="dim", highlight=False, markup=False)
        return done.stdout

    def say(self, *words: str) -> None:
        """A command line, as typed."""
        self.console.print(f"  [bold]$[/] {' '.join(words)}", highlight=False)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headwater", *arguments]


class Up:
    """``headwater up`` over a folder of SELECTs, with its page and API, in a process of its own."""

    def __init__(self, shell: Shell, folder: Path, log: Path) -> None:
        self._shell = shell
        self._folder = folder
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self._token = ""

    def start(self) -> None:
        """Starts it, and returns once it serves. Raises CommandFailed."""
        arguments = ("--app", str(self._folder), "up", "--http", "127.0.0.1:0")
        self._shell.say("headwater", *arguments)
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                _command(*arguments),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        watchdog = threading.Timer(START_SECONDS, self.kill)
        watchdog.start()
        said = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said += line
            if found := re.search(r"serving (http://\S+?);", line):
                self.url = found[1]
            if found := re.search(r"local token.*: (\S+)$", line.strip()):
                self._token = found[1]
                break
        watchdog.cancel()
        if not self._token:
            raise CommandFailed(f"headwater up did not start: {said}. See {self._log}.")

    def get(self, path: str) -> Any:
        """What the API answers."""
        with self._open(path, 30) as response:
            return json.load(response)

    def follow(self, path: str, into: Queue[dict[str, Any]]) -> threading.Thread:
        """Puts what a live channel sends into a queue, as a browser would take it, until it ends."""
        stream = self._open(path, 60)

        def read() -> None:
            try:
                for message in _messages(stream):
                    into.put(message)
            except OSError:
                return  # the process was killed: a browser would connect again

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _open(self, path: str, seconds: float) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            self.url + path, headers={"Authorization": f"Bearer {self._token}"}
        )
        return urllib.request.urlopen(request, timeout=seconds)  # noqa: S310

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ctrl-C."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        self._token = ""
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)
            process.wait(30)
        if process is not None and process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _messages(stream: Any) -> Iterator[dict[str, Any]]:
    for line in stream:
        if line.startswith(b"data:") and (data := line[5:].strip()):
            yield json.loads(data)
