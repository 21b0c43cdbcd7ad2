"""Alerts and endpoints by the command line."""

from __future__ import annotations

import base64
import json

import pytest
from click.testing import CliRunner

from headwater.entrances.cli import outgoing
from headwater.entrances.cli.main import cli

pytestmark = pytest.mark.postgres
assert outgoing  # its commands register themselves


def test_operators_add_change_and_silence_by_the_command_line(database18, monkeypatch):
    monkeypatch.setenv("HEADWATER_DATABASE_URL", database18.url)
    monkeypatch.delenv("HEADWATER_APP", raising=False)

    def headwater(*arguments, exits=0):
        done = CliRunner().invoke(cli, list(arguments))
        assert done.exit_code == exits, done.output
        return done.stdout

    def endpoints():
        return json.loads(headwater("webhooks", "list", "--json"))

    url = "https://acme.example/hooks"
    assert headwater("webhooks", "list") == "There is no endpoint.\n"
    secret = headwater("webhooks", "add", "acme", url, "--tenant", "main", "--type", "order.placed", "--after", "7").split()[0]  # fmt: skip
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    (acme,) = endpoints()
    assert (acme["url"], acme["types"], acme["state"], acme["position"]) == (url, ["order.placed"], "active", 7)  # fmt: skip
    assert secret not in json.dumps(acme)
    headwater("webhooks", "add", "acme", url, "--tenant", "main", exits=2)
    headwater("webhooks", "add", "bad", "ftp://acme.example", "--tenant", "main", exits=2)
    assert headwater("webhooks", "rotate", "acme", "--overlap", "2h").strip() != secret
    headwater("webhooks", "pause", "acme")
    assert endpoints()[0]["state"] == "paused"
    headwater("webhooks", "resume", "acme")
    headwater("webhooks", "replay", "acme", "--after", "3")
    assert (endpoints()[0]["state"], endpoints()[0]["position"]) == ("active", 3)
    headwater("webhooks", "remove", "acme")
    headwater("webhooks", "remove", "acme", exits=2)

    assert headwater("alerts", "list") == "There is no alert.\n"
    headwater("alerts", "silence", "dead", "--for", "2h", exits=2)
    with database18.admin() as admin:
        admin.execute("INSERT INTO headwater.alerts (alert, tenant) VALUES ('dead', 'main')")
    headwater("alerts", "silence", "dead", "--for", "soon", exits=2)
    assert (
        headwater("alerts", "silence", "dead", "--for", "2h") == "alert dead: silent for 7200 s\n"
    )
    (dead,) = json.loads(headwater("alerts", "list", "--json"))
    assert dead["silenced_until"] is not None
    headwater("alerts", "silence", "dead", "--for", "0s")
    (dead,) = json.loads(headwater("alerts", "list", "--json"))
    assert dead["silenced_until"] is None
