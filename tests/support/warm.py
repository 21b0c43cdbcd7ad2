"""Modules in processes of their own that need no time to start: forked from one that has imported Headwater.

``python warm.py`` is that one: it reads a request a line, forks, and answers with the exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from threading import Lock, Timer


class Warm:
    """Runs modules, one after another."""

    def __init__(self):
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def run(self, arguments, *, env, cwd=None, timeout=60, module="headwater"):
        """What subprocess.run gives for ``python -m MODULE ARGUMENTS``; the module is the command line."""
        with tempfile.TemporaryDirectory(prefix="headwater-warm-") as folder, self._lock:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {
                "module": module,
                "arguments": [str(argument) for argument in arguments],
                "env": dict(env),
                "cwd": str(cwd or Path.cwd()),
                "out": str(out),
                "err": str(err),
            }
            late = Timer(timeout, self._process.kill)
            late.start()
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            finally:
                late.cancel()
            said = [one.read_text() if one.exists() else "" for one in (out, err)]
            if not answer:
                raise TimeoutError(f"{arguments}: not within {timeout} s: {said}")
            return subprocess.CompletedProcess(arguments, int(answer), *said)


@cache
def warm():
    """The one of this test process."""
    return Warm()


def _become(request):
    """Goes on as the module. Never returns."""
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = ["", *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [request["module"], *request["arguments"]]
    code = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - it is told as a process tells it
        code = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve():
    from importlib import import_module
    from pkgutil import iter_modules

    cli = import_module("headwater.entrances.cli")
    for module in iter_modules(cli.__path__):
        import_module(f"headwater.entrances.cli.{module.name}")
    for line in sys.stdin:
        request = json.loads(line)
        if (pid := os.fork()) == 0:
            _become(request)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
