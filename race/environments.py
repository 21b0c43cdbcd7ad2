"""Environments of their own for peers, below build/race: a virtual environment or a folder of npm packages each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from race.contestants import Contestant

JAVA = 17
INSTALL_SECONDS = 900


class CannotRun(Exception):
    """Why a contestant cannot take part here."""


@dataclass(frozen=True)
class Environment:
    """Where a contestant's program and packages are, and what is installed there."""

    program: Path
    folder: Path
    versions: tuple[str, ...]


def prepare(name: str, contestant: Contestant, root: Path) -> Environment:
    """The contestant's environment, installed where it is missing or made of other packages. Raises CannotRun."""
    if not contestant.packages:
        return Environment(Path(sys.executable), root, ())
    if contestant.java:
        _java()
    folder = root / name
    stamp, wanted = folder / "packages.txt", "\n".join(contestant.packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        if contestant.kind == "node":
            _npm(folder, contestant.packages)
        else:
            venv.create(folder, with_pip=True)
            _run([str(folder / "bin/python"), "-m", "pip", "install", "-q", *contestant.packages])
        stamp.write_text(wanted)
    if contestant.kind == "node":
        return Environment(Path(_program("node")), folder, (*contestant.packages, f"node {_run(['node', '--version']).strip()}"))  # fmt: skip
    freeze = _run([str(folder / "bin/python"), "-m", "pip", "freeze", "-q"])
    java = (f"java {_java()}",) if contestant.java else ()
    return Environment(folder / "bin/python", folder, (*freeze.split(), *java))


def _npm(folder: Path, packages: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    (folder / "package.json").write_text("{}")
    command = [_program("npm"), "install", "--silent", "--no-audit", "--no-fund", "--save-exact"]
    _run([*command, "--prefix", str(folder), *packages])


def _java() -> str:
    """The version of the Java on the path. Raises CannotRun where there is none, or one that is too old."""
    said = subprocess.run(
        [_program("java"), "-version"], capture_output=True, text=True, check=False
    ).stderr
    found = re.search(r'version "((\d+)[^"]*)"', said)
    if found is None or int(found[2]) < JAVA:
        raise CannotRun(f"needs Java {JAVA} or newer; `java -version` says {said.strip()!r}")
    return found[1]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotRun(f"needs `{name}`, which is not installed")
    return found


def _run(command: list[str]) -> str:
    """What a command prints. Raises CannotRun with its last lines."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{command[0]} took longer than {INSTALL_SECONDS} s") from None
    if ran.returncode != 0:
        raise CannotRun("\n".join((ran.stderr or ran.stdout).strip().splitlines()[-5:]))
    return ran.stdout
