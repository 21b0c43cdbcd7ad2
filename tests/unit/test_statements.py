"""Every statement that code names is in a file of statements."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2]
FOLDERS = ("src/headwater", "simulation", "bench", "examples")
NAMED = re.compile(r'\b[A-Z]*SQL\["([a-z_0-9]+\.[a-z_0-9]+)"\]')
HELD = re.compile(r"^-- name: (\S+)", re.MULTILINE)


def test_every_statement_that_is_named_is_there():
    files = [file for folder in FOLDERS for file in (SOURCE / folder).rglob("*.py")]
    named = {name: file for file in files for name in NAMED.findall(file.read_text())}
    held = {
        f"{file.stem}.{name}"
        for folder in FOLDERS
        for file in (SOURCE / folder).rglob("sql/*.sql")
        for name in HELD.findall(file.read_text())
    }
    assert len(named) > 200
    assert {name: str(file) for name, file in named.items() if name not in held} == {}
