"""The command line as its users meet it: each command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from warm import warm

pytestmark = pytest.mark.postgres

SUPPORT = Path(__file__).parents[1] / "support"
SECONDS = 60
VIEWS = ["by_events", "orders", "sales", "totals"]


class CommandLine:
    """Runs commands against one database."""

    def __init__(self, url, **settings):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        self.environment = inherited | {
            "HEADWATER_DATABASE_URL": url,
            "HEADWATER_APP": "shop:app",
            "PYTHONPATH": str(SUPPORT),
            "COLUMNS": "200",
            **settings,
        }

    def without_app(self):
        other = CommandLine("")
        other.environment = {k: v for k, v in self.environment.items() if k != "HEADWATER_APP"}
        return other

    def command(self, *arguments):
        return [sys.executable, "-m", "headwater", *map(str, arguments)]

    def __call__(self, *arguments, exits=0):
        """Runs a command to its end; what it printed. No user ever sees a traceback."""
        done = warm().run(arguments, env=self.environment, timeout=SECONDS)
        assert "Traceback" not in done.stderr
        assert done.returncode == exits, done.stdout + done.stderr
        return done

    def json(self, *arguments, exits=0):
        return json.loads(self(*arguments, "--json", exits=exits).stdout)

    def lines(self, *arguments):
        return [json.loads(line) for line in self(*arguments, "--json").stdout.splitlines()]

    def place(self, order, total="5", *more):
        data = json.dumps({"order": str(order), "total": total})
        return self.json("append", "order.placed", data, "--stream", f"order/{order}", *more)

    @contextmanager
    def up(self, *arguments):
        """`headwater up`, once it drives; interrupted at the end."""
        process = subprocess.Popen(
            self.command("up", *arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            process.headline = process.stdout.readline()
            assert "driving" in process.headline, process.stderr.read()
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                process.communicate()


def until(condition, *, seconds=SECONDS):
    """Polls until a condition holds; starting a process is the pause between two polls."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
    return value


@pytest.fixture
def headwater(database18):
    return CommandLine(database18.url, HEADWATER_ADMIN_DATABASE_URL=database18.admin_url)


@pytest.fixture
def deployed(headwater):
    headwater("init")
    return headwater


# Each command ------------------------------------------------------------------------------------


def test_init_creates_the_views_and_says_so_once(headwater):
    first = headwater("init").stdout.splitlines()
    assert first[0] == "the schema is up to date"
    assert sorted(first[1:]) == [f"view {view}: created" for view in VIEWS]
    again = headwater("init").stdout.splitlines()
    assert sorted(again[1:]) == [f"view {view}: current" for view in VIEWS]


def test_init_without_an_app_creates_a_login(headwater, database18):
    said = headwater.without_app()("init", "--login", "shop_login").stdout
    assert "login shop_login: may take headwater_app" in said
    url = database18.server.postgres.url(database18.name, user="shop_login")
    CommandLine(url)("views")


def test_append_stream_and_log(deployed):
    first = deployed.place(1, "5", "--expect", "0", "--key", "k")
    assert (first["version"], first["duplicate"]) == (1, False)
    assert deployed.place(1, "5", "--expect", "0", "--key", "k")["duplicate"]
    printed = deployed(
        "append", "order.placed", '{"order": "2", "total": 7}', "--stream", "order/2"
    )
    assert printed.stdout.split()[:4] == ["position", "version", "token", "duplicate"]

    (event,) = deployed.lines("stream", "order/1")
    assert (event["stream"], event["data"]) == ("order/1", {"order": "1", "total": "5"})
    assert "order.placed" in deployed("stream", "order/1").stdout
    assert deployed.lines("stream", "order/1", "--after-version", "1") == []
    assert "No events in order/9" in deployed("stream", "order/9").stderr
    assert deployed.lines("stream", "order/1", "--tenant", "other") == []

    assert [e["stream"] for e in deployed.lines("log")] == ["order/1", "order/2"]
    assert "order/2" in deployed("log").stdout
    after = deployed.lines("log", "--after", first["position"], "--type", "order.placed")
    assert [e["stream"] for e in after] == ["order/2"]
    assert deployed.lines("log", "--tenant", "other") == []
    assert len(deployed.lines("log", "--after", "0", "--limit", "1")) == 1


def test_log_follows_until_interrupted(deployed):
    process = subprocess.Popen(
        deployed.command("log", "--after", "0", "--follow", "--json"),
        env=deployed.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for order in (1, 2):
            deployed.place(order)
            assert json.loads(process.stdout.readline())["stream"] == f"order/{order}"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        _, errors = process.communicate()
    assert "Traceback" not in errors


def test_up_drives_the_views_and_stops_on_sigint(deployed):
    written = deployed.place(1)

    def caught_up():
        rows = deployed.json("views")
        return all(row["position"] >= written["position"] for row in rows) and rows

    with deployed.up() as process:
        rows = until(caught_up)
        assert [row["view"] for row in rows] == VIEWS
        assert {(row["status"], row["parked"]) for row in rows} == {("current", 0)}
        assert {row["state"] for row in rows} == {"running"}
        verified = deployed.json("verify")
        assert sorted(v["view"] for v in verified) == VIEWS
        assert all(v["equal"] for v in verified)
        assert "totals" in deployed("verify", "totals").stdout
        assert all(finding["level"] == "ok" for finding in deployed.json("doctor"))
        metrics = deployed("metrics").stdout.splitlines()
        assert "headwater_relays 1" in metrics
        assert 'headwater_view_driven{view="orders"} 1' in metrics
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert "Traceback" not in process.stderr.read()


def test_up_only_drives_what_is_named(deployed):
    with deployed.up("--only", "totals") as process:
        assert process.headline.startswith("driving totals;")

        def driven():
            return [row["view"] for row in deployed.json("views") if row["driven_by"]]

        assert until(driven) == ["totals"]


def test_doctor_says_what_needs_attention_with_exit_code_1(deployed):
    findings = {f["check"]: f for f in deployed.json("doctor", exits=1)}
    assert findings["relays"]["level"] == "warn"
    assert findings["relays"]["remedy"] == "Run headwater up."
    assert "Run headwater up." in deployed("doctor", exits=1).stdout


def test_verify_finds_what_was_tampered_with_with_exit_code_1(deployed, database18):
    written = deployed.place(1)
    with deployed.up():
        until(lambda: deployed.json("views")[3]["position"] >= written["position"])
    with database18.admin() as admin:
        admin.execute("UPDATE headwater_views.totals__1 SET state_1 = state_1 + 1")
    (result,) = deployed.json("verify", "totals", exits=1)
    assert (result["equal"], result["differing"]) == (False, 2)
    assert "totals main" in deployed("verify", "totals", exits=1).stdout


def test_a_parked_event_is_listed_shown_and_discarded(deployed):
    position = deployed.place("word")["position"]  # `sales` casts the order to a number
    assert deployed("parked").stdout == "Nothing is parked.\n"
    with deployed.up("--only", "sales"):
        (row,) = until(lambda: deployed.json("parked", "--view", "sales"))
    assert (row["position"], row["status"], row["culprit"]) == (position, "parked", True)
    assert "invalid input syntax" in deployed("parked", "--limit", "1").stdout
    shown = json.loads(deployed("parked", "--show", position).stdout)
    assert shown["data"]["order"] == "word"
    assert deployed.json("verify", "sales")[0]["equal"]
    assert deployed("parked", "--view", "sales", "--replay").stdout == "0 replayed\n"
    assert deployed("parked", "--view", "sales", "--discard", position).stdout.split()[0] == "1"
    assert deployed.json("parked")[0]["status"] == "discarded"


def test_rebuild_starts_a_view_over(deployed):
    written = deployed.place(1)

    def at(position):
        return lambda: deployed.json("views")[3]["position"] == position

    with deployed.up("--only", "totals"):
        until(at(written["position"]))
    assert "starts over" in deployed("rebuild", "--in-place", "totals").stdout
    assert at(0)()
    with deployed.up("--only", "totals"):
        until(at(written["position"]))


def test_explain_names_the_events_behind_a_row(deployed):
    written = deployed.place(1)
    with deployed.up("--only", "orders"):
        until(lambda: deployed.json("views")[1]["position"] == written["position"])
    explained = deployed.json("explain", "orders", "1")
    assert [c["row"] for c in explained["changes"]] == [{"total": "5", "events": 1}]
    shown = deployed("explain", "orders", "1").stdout
    assert "order.placed" in shown
    assert f"1 of 1 events, up to position {written['position']}" in shown
    assert "No event" in deployed("explain", "orders", "9").stdout


def test_rebuild_swaps_and_rollback_takes_it_back(deployed):
    written = deployed.place(1)
    refused = deployed("rollback", "sales", exits=2)
    assert "Nothing is kept" in refused.stderr
    with deployed.up("--only", "sales"):
        until(lambda: deployed.json("views")[2]["position"] == written["position"])
    assert "sales is rebuilt, equal to the log" in deployed("rebuild", "sales").stdout
    assert "what it was" in deployed("rollback", "sales").stdout
    assert deployed.json("verify", "sales")[0]["equal"]
    assert "is rebuilt in place" in deployed("rollback", "orders", exits=2).stderr


def test_an_app_is_named_by_option_too(deployed):
    named = deployed.without_app()("--app", "shop:app", "views", "--json")
    assert [row["status"] for row in json.loads(named.stdout)] == ["current"] * 4
    unnamed = deployed.without_app().json("views")
    assert [row["status"] for row in unnamed] == ["unknown"] * 4


def test_version_and_help(headwater):
    assert "version" in headwater("--version").stdout
    assert "rebuild" in headwater("--help").stdout


# What goes wrong ---------------------------------------------------------------------------------

PLACED = ("append", "order.placed")
FITS = '{"order": "1", "total": "5"}'
MISTAKES = {
    "unknown type": (("append", "no.such", "{}", "--stream", "order/1"), "not registered"),
    "unknown version": ((*PLACED, FITS, "--stream", "order/1", "--schema-version", "9"), "version 9"),
    "not JSON": ((*PLACED, "{", "--stream", "order/1"), "not JSON"),
    "no object": ((*PLACED, "[]", "--stream", "order/1"), "not an object"),
    "missing field": ((*PLACED, "{}", "--stream", "order/1"), "field order is missing"),
    "other stream": ((*PLACED, FITS, "--stream", "order/2"), "the stream is not"),
    "malformed stream": ((*PLACED, FITS, "--stream", "order"), "malformed"),
    "wrong expected version": ((*PLACED, FITS, "--stream", "order/1", "--expect", "3"), "at version 0, not 3"),
    "malformed key": ((*PLACED, FITS, "--stream", "order/1", "--key", "\n"), "idempotency key"),
    "malformed tenant": ((*PLACED, FITS, "--stream", "order/1", "--tenant", ""), "tenant"),
    "no stream": ((*PLACED, FITS), "--stream"),
    "no number": (("log", "--limit", "many"), "--limit"),
    "unknown command": (("derive",), "No such command"),
    "verify an unknown view": (("verify", "nowhere"), "no view 'nowhere'"),
    "rebuild an unknown view": (("rebuild", "nowhere"), "no view 'nowhere'"),
    "drive an unknown view": (("up", "--only", "nowhere"), "no view 'nowhere'"),
    "replay an unknown view": (("parked", "--view", "nowhere", "--replay"), "no view 'nowhere'"),
    "replay no view": (("parked", "--replay"), "--view"),
    "show no event": (("parked", "--show", "1"), "no event at position 1"),
}  # fmt: skip


def test_mistakes_are_explained_with_exit_code_2_and_leave_nothing(deployed):
    def explained(mistake):
        arguments, words = mistake
        said = deployed(*arguments, exits=2).stderr
        return words in said or said

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip(MISTAKES, pool.map(explained, MISTAKES.values()), strict=True))
    assert outcomes == dict.fromkeys(MISTAKES, True)
    assert deployed.lines("log", "--after", "0") == []


def test_a_view_that_is_not_deployed_is_explained(headwater):
    assert "not deployed" in headwater("rebuild", "sales", exits=2).stderr
    assert "No views are deployed" in headwater("views").stderr


def test_the_wrong_app_is_explained(headwater):
    for app, words in {
        "nowhere:app": "cannot be loaded",
        "shop:nothing": "cannot be loaded",
        "shop:Placed": "not a headwater.App",
    }.items():
        assert words in headwater("--app", app, "views", exits=2).stderr
    assert "No app is named" in headwater.without_app()("up", exits=2).stderr


def test_a_wrong_setting_is_explained(database18):
    misspelt = CommandLine(database18.url, HEADWATER_POOLSIZE="3")
    assert "no setting HEADWATER_POOLSIZE" in misspelt("views", exits=2).stderr
    malformed = CommandLine(database18.url, HEADWATER_POOL_SIZE="many")
    assert "HEADWATER_POOL_SIZE is 'many'" in malformed("views", exits=2).stderr
    ours = CommandLine(database18.url, HEADWATER_DATA="/data", HEADWATER_TEST_SEED="1")
    ours("views")
    missing = CommandLine(database18.url)
    assert "HEADWATER_ADMIN_DATABASE_URL" in missing("init", exits=2).stderr


def test_a_database_out_of_reach_is_exit_code_3(database18):
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    assert "cannot be reached" in CommandLine(nowhere)("views", exits=3).stderr
    admin = CommandLine(database18.url, HEADWATER_ADMIN_DATABASE_URL=nowhere)
    assert "cannot be reached" in admin("init", exits=3).stderr


def test_a_superuser_is_refused_with_the_way_out(database18):
    refused = CommandLine(database18.admin_url)("views", exits=2).stderr
    assert "is a superuser" in refused
    assert "headwater init --login" in refused
