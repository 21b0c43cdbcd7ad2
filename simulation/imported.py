"""What the processes of an installation import while they start, so that it is there before they are forked."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import headwater.entrances.cli
import headwater.entrances.http
import headwater.stores.clickhouse.engine
import headwater.stores.lake.engine
import headwater.stores.redis.documents

for found in iter_modules(headwater.entrances.cli.__path__):
    import_module(f"headwater.entrances.cli.{found.name}")
