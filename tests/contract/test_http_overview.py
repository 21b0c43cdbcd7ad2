"""What the page asks the API for: how far the log and its views are, definitions, parked events."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support import shop
from tests.support.web import NDJSON, api, line, serving_of, shop_app, token_for

pytestmark = pytest.mark.postgres


async def append(client, *lines):
    response = await client.post("/v1/events", content=b"".join(lines), headers=NDJSON)
    response.raise_for_status()
    return response.json()["token"]


async def test_what_the_page_asks_for_is_open_to_the_right_scopes_only(database18):
    async with api(database18) as client:
        token = await append(client, line(1), line(2))
        await client.get("/v1/views/totals/", params={"at_least": token})
        _, reads = await token_for(client, scopes=("read",))
        _, operates = await token_for(client, tenant=None, scopes=("operate",))
        caller = await client.get("/v1/caller", headers=reads)
        assert caller.json() == {"app": "shop", "tenant": "main", "scopes": ["read"]}
        for path, opened in {
            "/v1/overview": operates,
            "/v1/definitions/orders": operates,
            "/v1/parked/orders": reads,
            "/v1/events?newest=true": reads,
        }.items():
            for headers in (reads, operates):
                expected = 200 if headers is opened else 403
                assert (await client.get(path, headers=headers)).status_code == expected, path
        assert (await client.get("/v1/caller", headers={"Authorization": ""})).status_code == 401


async def test_the_overview_says_how_far_each_view_is(database18):
    async with api(database18, relay=False) as client:
        async with client.app.relay("orders"):
            token = await append(client, *(line(n) for n in range(5)))
            await client.get("/v1/views/orders/1", params={"at_least": token})
            overview = (await client.get("/v1/overview")).json()
            doctor = {f["check"]: f for f in (await client.get("/v1/doctor")).json()}
        assert doctor["view orders"]["level"] == "ok"
        assert doctor["view sales"]["finding"] == "no relay drives it, and 5 events wait"
        views = {view["name"]: view for view in overview["views"]}
        assert set(views) == {"by_events", "orders", "sales", "totals"}
        assert (views["orders"]["behind"], views["orders"]["state"]) == (0, "running")
        sales = views["sales"]
        assert (sales["behind"], sales["exact"], sales["driven_by"]) == (5, True, None)
        assert sales["behind_seconds"] > 0
        assert overview["log"]["position"] == overview["log"]["drawn"]
        assert overview["log"]["relays"] == 1


async def test_definitions_are_text(database18):
    async with api(database18, relay=False) as client:
        fold = (await client.get("/v1/definitions/orders")).json()
        assert fold["language"] == "python"
        assert "def orders(state: Order, event: Placed)" in fold["text"]
        assert (fold["key"], fold["reads"]) == (["order"], ["order.placed"])
        view = (await client.get("/v1/definitions/sales")).json()
        assert (view["language"], view["text"]) == ("sql", shop.sales.view.text)
        assert (await client.get("/v1/definitions/absent")).status_code == 404


async def test_the_newest_events_come_in_order(database18):
    async with api(database18) as client:
        token = await append(client, *(line(n) for n in range(9)))
        asked = {"newest": "true", "limit": 3, "at_least": token}
        page = (await client.get("/v1/events", params=asked)).json()
        assert [event["stream"] for event in page["events"]] == ["order/6", "order/7", "order/8"]
        rest = await client.get("/v1/events", params={"after": page["next"]})
        assert rest.json()["events"] == []


async def test_parked_events_of_a_tenant_with_the_reason(database18):
    app = shop_app(database18, tenant="main")

    @app.fold(key="order", name="wary")
    def wary(state: shop.Order, event: shop.Placed) -> shop.Order | None:
        if event.total > 100:
            raise ValueError("too much")
        return state

    async with app, serving_of(app) as client:
        await app.append(shop.Placed("1", Decimal(500)), shop.Placed("2", Decimal(5)))
        written = await app.append(shop.Placed("2", Decimal(900)), tenant="other")
        await wary.get("3", at_least=written.token)
        (parked,) = (await client.get("/v1/parked/wary")).json()["parked"]
        assert (parked["stream"], parked["type"]) == ("order/1", "order.placed")
        assert "too much" in parked["reason"]
        assert parked["data"] == {"order": "1", "total": "500"}


async def test_what_is_behind_a_row_and_what_it_was(database18):
    async with api(database18) as client:
        await append(client, line(1, total="5"))
        token = await append(client, line(1, total="7"))
        _, reads = await token_for(client, scopes=("read",))
        _, others = await token_for(client, tenant="other", scopes=("read",))
        await client.get("/v1/views/orders/1", params={"at_least": token})
        found = (await client.get("/v1/explain/orders/1", headers=reads)).json()
        assert (found["key"], found["events"]) == (["1"], 2)
        assert [change["row"]["total"] for change in found["changes"]] == ["5", "12"]
        assert [change["data"]["total"] for change in found["changes"]] == ["5", "7"]
        first, second = (change["position"] for change in found["changes"])
        assert (await client.get("/v1/explain/orders/1", headers=others)).json()["events"] == 0
        await client.get("/v1/views/totals/", params={"at_least": token})
        found = (await client.get("/v1/explain/totals/?limit=1", headers=reads)).json()
        assert (found["events"], len(found["changes"])) == (2, 1)

        was = (await client.get(f"/v1/history/orders/1?as_of={first}", headers=reads)).json()
        assert was["row"]["total"] == "5"
        change = (await client.get(f"/v1/history/orders/1?as_of={second}&since={first}", headers=reads)).json()  # fmt: skip
        assert change["fields"]["total"] == {"before": "5", "after": "12"}
        assert change["positions"] == [second]
        none = await client.get("/v1/history/orders/1?as_of=2020-01-01T00:00:00Z&clock=occurred", headers=reads)  # fmt: skip
        assert none.json() == {"row": None}
        for path, status, code in (
            ("/v1/history/totals/?as_of=1", 400, "request_refused"),
            ("/v1/history/orders/1", 400, "request_refused"),
            ("/v1/history/orders/1?as_of=2026-99-01T00:00:00Z", 400, "invalid_moment"),
            (f"/v1/history/orders/1?as_of={2**59}", 504, "not_caught_up"),
            ("/v1/explain/nowhere/1", 404, "unknown_view"),
        ):
            answer = await client.get(path, headers=reads)
            assert (answer.status_code, answer.json()["code"]) == (status, code), path
