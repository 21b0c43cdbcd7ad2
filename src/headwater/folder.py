"""An app without Python: event types from the log's registry, a view for each .sql file of a folder.

A SELECT reads event types, ``FROM shop.orders.inserted``, or the rows of a captured table as they are now,
``FROM shop_orders``: then the table's rows are kept as a fold.
"""

from __future__ import annotations

import re
from pathlib import Path

from headwater.app import App
from headwater.capture.rows import row_folds
from headwater.capture.tables import only_tenant
from headwater.errors import DefinitionError, HeadwaterError, ViewDefinitionError
from headwater.events import EventType
from headwater.log import Database
from headwater.log.registry import registered
from headwater.operations.settings import Settings


async def app_of_folder(folder: Path, settings: Settings) -> App:
    """The app of a folder. Its views are named by their files; their keys are what they group by.

    Where all captured tables are of one tenant, that is the app's.

    Reads the registry, so the database must be running. Raises DefinitionError, naming the file, for a
    SELECT that cannot be kept.
    """
    database = Database(
        settings.server().url, "headwater_operator", name="headwater folder", max_size=1
    )
    try:
        types = await registered(database)
        tenant = await only_tenant(database)
    finally:
        await database.close()
    return _app(folder, types, tenant, settings)


def _app(folder: Path, types: list[EventType], tenant: str | None, settings: Settings) -> App:
    name, classes = folder.resolve().name, [t.event_class for t in types]
    app = App(name, events=classes, tenant=tenant, settings=settings)
    files = sorted(folder.glob("*.sql"))
    rows = list(row_folds(types))
    wanted = " ".join(file.read_text(errors="replace") for file in files)
    for fold in rows:
        if re.search(rf"\b{fold.name}\b", wanted):
            app.declare(fold)
    for file in files:
        try:
            app.sql(file.stem, sql=file)
        except DefinitionError as error:
            known = ", ".join([t.name for t in types]) or "none; see `headwater capture`"
            tables = ", ".join(fold.name for fold in rows)
            raise ViewDefinitionError(
                f"{file}: {error.message}",
                hint=f"{error.hint or ''} The log's event types are {known}."
                + (f" The captured tables are {tables}." if tables else ""),
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise HeadwaterError(f"{file} cannot be read: {error}.") from error
    return app
