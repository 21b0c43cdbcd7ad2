"""The documentation as a tested product: what it shows runs, what it lists is what the code has."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal
from uuid import UUID

import click
import msgspec
import pytest

import headwater.errors
from headwater import App, Document, Event, Settings
from headwater.entrances.cli import (
    access,
    capture,
    commands,
    history,
    inboxes,
    jobs,
    outgoing,
    personal,
    query,
    sagas,
    schema,
    views,
)
from headwater.entrances.cli.main import cli
from headwater.entrances.http import Limits
from headwater.entrances.http.problems import STATUS
from headwater.errors import HeadwaterError, ViewDefinitionError
from headwater.events.schema import relation_of, schema_of
from headwater.operations.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
SECONDS = 60

assert access
assert capture
assert commands
assert history
assert inboxes
assert jobs
assert outgoing
assert personal
assert query
assert sagas
assert schema
assert views


def blocks(page):
    """The fenced blocks of a page: what stands behind the fence, and the text."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def first_cells(text):
    """What is in backticks in the first cell of each table row."""
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return [re.findall(r"`([^`]+)`", row) for row in rows]


def listed_once(names):
    """The names, once it is sure that none is listed twice."""
    times = Counter(names)
    assert [name for name in times if times[name] > 1] == []
    return set(times)


def sections(page):
    """The text below each heading of the second level that is a name in backticks."""
    parts = re.split(r"^## `([^`]+)`$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# What runs ---------------------------------------------------------------------------------------


class Reader:
    """Someone who does what a page says, in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        self.environment = inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HEADWATER_HOME": str(folder / ".headwater"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        }
        self.second_terminal = None
        self.server = None
        self.exports = ""

    def does(self, info, text):
        """Does what one block says; its output where it has one."""
        language, _, title = info.partition(" ")
        if title == "second terminal":
            self.opens_a_second_terminal(text)
        elif title == "stop second terminal":
            self.stops_the_second_terminal()
        elif title == "kill second terminal":
            self.stops_the_second_terminal(signal.SIGKILL)
        elif title:
            (self.folder / title).parent.mkdir(exist_ok=True)
            (self.folder / title).write_text(text)
        elif language == "sh":
            self.exports += "".join(re.findall(r"^export .*\n", text, re.MULTILINE))
            output = self.runs("bash", "-e", "-c", self.exports + text)
            self.keeps_the_server()
            return output
        return None

    def keeps_the_server(self):
        """From the first command on, so that it is not started and stopped around each."""
        home = Path(self.environment["HEADWATER_HOME"]) / "postgres"
        if self.server is None and home.exists():
            self.server = EmbeddedPostgres(home)
            self.server.start()

    def runs(self, *command):
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
        return done.stdout

    def opens_a_second_terminal(self, text):
        *exports, command = text.strip().splitlines()
        self.second_terminal = subprocess.Popen(
            ["bash", "-c", "\n".join([*exports, f"exec {command}"])],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert "driving" in self.second_terminal.stdout.readline()

    def stops_the_second_terminal(self, number=signal.SIGINT):
        process, self.second_terminal = self.second_terminal, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


@contextmanager
def reader_in(folder):
    folder.chmod(0o755)
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.stops_the_second_terminal()
        if reader.server is not None:
            reader.server.stop()


def assert_shows(output, expected):
    """Each expected line is in the output, in order; … stands for anything, blanks do not count."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for wanted in expected.splitlines():
        pattern = r"\s*.*\s*".join(re.escape(" ".join(p.split())) for p in wanted.split("…"))
        found = next((n for n, line in enumerate(lines) if re.fullmatch(pattern, line)), None)
        assert found is not None, f"{wanted!r} is not in\n{output}"
        lines = lines[found + 1 :]


def test_the_first_app_of_the_readme_runs_twice(tmp_path):
    shown = dict(blocks(ROOT / "README.md"))
    with reader_in(tmp_path) as reader:
        reader.does("python first.py", shown["python first.py"])
        began = time.monotonic()
        assert reader.runs(sys.executable, "first.py") == shown["text"]
        again = reader.runs(sys.executable, "first.py").splitlines()
        assert again[0] == "Order(total=Decimal('19.00'), changes=2)"
        assert again[-1] == "equal"
        assert time.monotonic() - began < SECONDS


RUNNABLE = [
    "tutorial/first-app",
    "tutorial/watch-a-table",
    "how-to/decide-with-commands",
    "how-to/derive-events",
    "how-to/run-jobs",
    "how-to/run-sagas",
    "how-to/tell-others",
    "how-to/tell-people",
    "how-to/answer-once",
    "how-to/limit-requests",
    "how-to/roll-out-a-schema-change",
    "how-to/look-into-the-past",
]


@pytest.mark.parametrize("page", RUNNABLE)
def test_a_page_runs_from_an_empty_folder(tmp_path, page):
    output = None
    with reader_in(tmp_path) as reader:
        for info, text in blocks(DOCS / f"{page}.md"):
            if info == "text":
                assert_shows(output, text)
            else:
                output = reader.does(info, text)


class Placed(Event, type="order.placed", stream="order/{order}"):
    order: str
    customer: str
    total: Decimal


class Refunded(Event, type="order.refunded", stream="order/{order}"):
    order: str
    customer: str
    total: Decimal


class Order(Document):
    status: str = "new"
    total: Decimal = Decimal(0)


def declare(query):
    """Declares a view of a query, its key the outputs that are grouped."""
    app = App("shop", events=[Placed, Refunded], tenant="main")

    @app.fold(key="order")
    def orders(state: Order, event: Placed) -> Order:
        return state

    grouped = re.search(r"GROUP BY (\w+)\s*$", query.strip())
    key = {None: (), "1": ("day",)}.get(grouped and grouped[1], (grouped and grouped[1],))
    names = [*key, *re.findall(r"\) (?:FILTER \(.*?\) )?(?:::\w+ )?AS (\w+)", query)]
    names += re.findall(r"::\w+ AS (\w+)", query)
    outputs = [name for name in dict.fromkeys(names) if name != "moved"]
    row = msgspec.defstruct("Row", [(name, object) for name in outputs])
    return app.sql("view", row=row, key=key, sql=query)


@pytest.mark.parametrize(
    "query", [text for info, text in blocks(REFERENCE / "sql-views.md") if info == "sql kept"]
)
def test_what_is_documented_as_kept_is_kept(query):
    assert declare(query).view.query.outputs


@pytest.mark.parametrize(
    "query", [text for info, text in blocks(REFERENCE / "sql-views.md") if info == "sql refused"]
)
def test_what_is_documented_as_refused_is_refused_with_a_way_out(query):
    with pytest.raises(ViewDefinitionError) as refused:
        declare(query)
    assert refused.value.hint
    assert "has the fields" not in refused.value.message


# What is listed ----------------------------------------------------------------------------------


def parameters_of(command):
    """Every name by which a command's arguments and options are given."""
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield parameter.metavar or parameter.name.upper()
        else:
            yield from parameter.opts


def all_commands(name, command):
    """A command and those below it, by their whole names."""
    yield name, command
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from all_commands(f"{name} {below}", one)


def test_every_command_and_option_is_documented_once():
    documented = sections(REFERENCE / "cli.md")
    known = dict(all_commands("headwater", cli))
    assert set(documented) == set(known)
    for name, command in known.items():
        cells = [cell.split()[0] for row in first_cells(documented[name]) for cell in row]
        assert listed_once(cells) == set(parameters_of(command)), name


def test_every_setting_is_documented_once_with_its_default():
    text = (REFERENCE / "settings.md").read_text()
    rows = re.findall(r"^\| `(HEADWATER_\w+)` \| (.*?) \|", text, re.MULTILINE)
    listed_once(name for name, _ in rows)
    documented = {name: "" if value == "empty" else value.strip("`") for name, value in rows}
    defaults = {f: "" if f.default is MISSING else str(f.default) for f in fields(Settings)}
    assert documented == {f.metadata["variable"]: value for f, value in defaults.items()}


def tree(error=HeadwaterError):
    yield error
    for below in error.__subclasses__():
        if below.__module__ == headwater.errors.__name__:
            yield from tree(below)


def test_every_error_is_documented_once_with_its_place_in_the_tree():
    text = (REFERENCE / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ((?:· )*)`(\w+)` \|", text, re.MULTILINE)
    listed_once(code for code, _, _ in rows)
    documented = {(code, name, depth.count("·")) for code, depth, name in rows}
    below = len(HeadwaterError.__mro__)
    assert documented == {(e.code, e.__name__, len(e.__mro__) - below) for e in tree()}


def test_every_sqlstate_is_documented_once():
    folder = ROOT / "src" / "headwater" / "operations" / "migrations"
    raised = {s for file in folder.glob("*.sql") for s in re.findall(r"HW\d{3}", file.read_text())}
    cells = [cell for row in first_cells((REFERENCE / "sql.md").read_text()) for cell in row]
    assert listed_once(cell for cell in cells if re.fullmatch(r"HW\d{3}", cell)) == raised


def test_every_limit_of_http_is_documented_once_with_its_default():
    text = sections_by_title(REFERENCE / "http.md")["Limits"]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)
    listed_once(name for name, _ in rows)
    known = {f.name: str(f.default) for f in msgspec.structs.fields(Limits)}
    assert dict(rows) == known


def test_every_status_of_http_is_documented():
    text = sections_by_title(REFERENCE / "http.md")["Refusals"]
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", text, re.MULTILINE)
    documented = {
        code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)
    }
    assert documented == {e.code: status for e, status in STATUS.items() if status != 500}


def sections_by_title(page):
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class Line(msgspec.Struct, frozen=True):
    """The struct in the table of field types."""


def test_the_field_types_map_to_sql_as_documented():
    names = {"Decimal": Decimal, "datetime": datetime, "date": date, "UUID": UUID}
    names |= {"Literal": Literal, "Line": Line}
    text = (REFERENCE / "events.md").read_text()
    rows = re.findall(
        r"^\| `((?:[^`|]|\\\|)+)`[^|]* \| [^|]+ \| `([\w ]+)` \|$", text, re.MULTILINE
    )
    assert len(rows) > 10
    for written, documented in rows:
        annotation = eval(written.replace("\\|", "|"), names)
        struct = msgspec.defstruct("Anything", [("field", annotation)])
        column = relation_of("a.b", schema_of(struct)).column("field")
        assert (written, column.sql_type) == (written, documented)


def test_every_metric_and_check_of_the_code_is_documented():
    code = (ROOT / "src" / "headwater" / "operations" / "health.py").read_text()
    text = (DOCS / "operations.md").read_text()
    cells = [cell for row in first_cells(text) for cell in row]
    metrics = {f"headwater_{n}" for n in re.findall(r'metric\(\s*"(\w+)"', code)}
    assert listed_once(c for c in cells if c.startswith("headwater_") and c in metrics) == metrics
    checks = set(re.findall(r'Finding\(\s*"\w+",\s*"(\w+)"', code)) | {"appenders"}
    assert checks <= set(cells)


# Links -------------------------------------------------------------------------------------------


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page):
    for file, _, name in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?`", page.read_text()):
        assert (ROOT / file).exists(), file
        assert f"def {name}(" in (ROOT / file).read_text() if name else True, name


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) <= seen
