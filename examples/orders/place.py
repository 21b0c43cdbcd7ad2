"""Where each service has its database, and which failures it is to meet."""

from __future__ import annotations

import os
from pathlib import Path

from headwater import Settings
from headwater.stores.nats import Nats

BUS = Nats("bus", replicas=int(os.environ.get("ORDERS_REPLICAS", "1")))
SERVICES = ("order", "inventory", "payment", "notification")


def settings_of(service: str) -> Settings:
    """A database for each: embedded, or where such as ORDER_DATABASE_URL says."""
    url = os.environ.get(f"{service.upper()}_DATABASE_URL", "")
    home = Path(os.environ.get("HEADWATER_HOME", "build/orders"), service)
    bus = os.environ.get("HEADWATER_STORE_BUS_URL", "")
    return Settings(database_url=url, home=home, stores={"bus": bus}, pool_size=20)


def failing(what: str) -> bool:
    """Whether ``--fail`` names it."""
    return what in os.environ.get("ORDERS_FAIL", "").split(",")
