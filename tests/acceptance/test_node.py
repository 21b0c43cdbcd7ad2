"""The how-to's program for Node, run by Node against a real Postgres."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headwater import App, Settings
from headwater.operations.migrate import admit_application
from support.shop import Placed

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs/how-to/your-own-transactions.md"
DRIVER = "pg@8.23.1"

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node and npm are not installed"),
]


@pytest.fixture(scope="module")
def folder():
    """A folder with the how-to's program and its driver."""
    folder = ROOT / "build" / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "pg").exists():
        npm = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), DRIVER],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if npm.returncode:
            pytest.skip(f"npm cannot install {DRIVER}: {npm.stderr.strip().splitlines()[-1:]}")
    (program,) = re.findall(
        r"^```js append\.mjs\n(.*?)^```$", HOW_TO.read_text(), re.MULTILINE | re.DOTALL
    )
    (folder / "append.mjs").write_text(program)
    return folder


async def test_node_appends_in_its_own_transaction(database18, folder):
    app = App("node", events=[Placed], tenant="main", settings=Settings(database_url=database18.url))  # fmt: skip
    with database18.admin() as admin:
        admin.execute("CREATE TABLE orders (id text PRIMARY KEY)")
        admin.execute("DROP ROLE IF EXISTS node_shop; CREATE ROLE node_shop LOGIN")
        admin.execute("GRANT ALL ON orders TO node_shop")
    await admit_application(database18.admin_url, "node_shop")
    server = database18.server.postgres
    environment = os.environ | {
        "PGHOST": str(server.socket_folder),
        "PGUSER": "node_shop",
        "PGDATABASE": database18.name,
        "DATABASE_URL": "",
    }

    def run():
        return subprocess.run(
            ["node", "append.mjs"],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    async with app:
        await app.deploy()
        first = run()
        assert first.returncode == 0, first.stderr
        (event,) = await app.log.stream("order/n1", tenant="main")
        assert first.stdout.strip().endswith(f".{event.position}")
        again = run()  # the row is there already: neither the row nor the fact is written twice
        assert again.returncode == 1
        assert again.stderr.startswith("23505")
        assert len(await app.log.stream("order/n1", tenant="main")) == 1
    with database18.admin() as admin:
        assert admin.execute("SELECT id FROM orders").fetchall() == [("n1",)]
        admin.execute("DROP OWNED BY node_shop; DROP ROLE node_shop")
