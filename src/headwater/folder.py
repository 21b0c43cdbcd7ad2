"""An app without Python: event types from the log's registry, a view for each .sql file of a folder.

A SELECT reads event types, ``FROM shop.orders.inserted``, another file's view, ``FROM by_minute``, or the rows of a
captured table as they are now, ``FROM shop_orders``: then the table's rows are kept as a fold.
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
    files = _finer_first(sorted(folder.glob("*.sql")))
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


def _finer_first(files: list[Path]) -> list[Path]:
    """The files, each after the one whose view it reads. Those that read each other are refused later."""
    texts = {file: file.read_text(errors="replace") for file in files if file.is_file()}
    reads = {
        file: {
            other
            for other in files
            if other != file
            and re.search(
                rf"\bFROM\s+{re.escape(other.stem)}\b(?!\.)", texts.get(file, ""), re.IGNORECASE
            )
        }
        for file in files
    }
    ordered: list[Path] = []
    while left := [file for file in files if file not in ordered]:
        ordered.append(next((f for f in left if reads[f] <= set(ordered)), left[0]))
    return ordered
