"""``headwater``: the command line.

Exit codes: 0 done; 1 a check found something; 2 wrong usage or a refusal that the message explains;
3 the database or its server is at fault; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import psycopg

from headwater.app import App
from headwater.entrances.cli import output
from headwater.errors import (
    DatabaseUnavailable,
    EmbeddedPostgresError,
    HeadwaterError,
    SettingError,
)
from headwater.folder import app_of_folder
from headwater.operations.settings import Settings

R = TypeVar("R")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--app",
    "app_path",
    metavar="APP",
    help="The app, as module:name or a folder of SELECTs; default HEADWATER_APP.",
)
@click.version_option(package_name="headwater")
@click.pass_context
def cli(context: click.Context, app_path: str | None) -> None:
    """Write each fact once, in one Postgres transaction; derive everything else from the log."""
    context.obj = app_path


def command(
    *,
    app_needed: bool = False,
    run_with: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
    below: click.Group | None = None,
) -> Callable[[Callable[..., Awaitable[int | None]]], click.Command]:
    """A command as an async function of (app, options), under the command's name and docstring.

    The app is opened around it; HeadwaterErrors become a message and an exit code. ``run_with`` runs the
    event loop. ``below`` is the group that it belongs to, whose name the function's may begin with.
    """

    def declare(run: Callable[..., Awaitable[int | None]]) -> click.Command:
        @functools.wraps(run)
        @click.pass_context
        def invoke(context: click.Context, /, **options: Any) -> None:
            app_path = context.find_root().obj
            sys.exit(_run(functools.partial(_opened, run, app_path, app_needed, options), run_with))

        group = cli if below is None else below
        name = run.__name__.strip("_").removeprefix(f"{group.name}_")
        return group.command(name.replace("_", "-"))(invoke)

    return declare


async def _opened(
    run: Callable[..., Awaitable[int | None]],
    app_path: str | None,
    app_needed: bool,
    options: dict[str, Any],
) -> int:
    async with opened_app(app_path, needed=app_needed) as app:
        return await run(app, **options) or 0


@asynccontextmanager
async def opened_app(path: str | None, *, needed: bool) -> AsyncIterator[App]:
    """The app at ``module:name``, of a folder of SELECTs, or one that knows the log only; open."""
    settings = Settings.from_environment()
    where = _folder(path or settings.app)
    if where is None:
        async with load_app(path, needed=needed) as app:
            yield app
        return
    server = settings.server()
    await server.open()
    try:
        async with await app_of_folder(where, settings) as app:
            yield app
    finally:
        await server.close()


def _folder(where: str) -> Path | None:
    return Path(where) if where and Path(where).is_dir() else None


def _run(
    work: Callable[[], Awaitable[int]],
    run_with: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
) -> int:
    # A supervisor's SIGTERM ends a command as Ctrl-C does, also one that a script started with &.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return run_with(_awaited(work))
    except KeyboardInterrupt:
        output.note("Interrupted.")
        return 130
    except (DatabaseUnavailable, EmbeddedPostgresError) as error:
        return _explain(error, 3)
    except HeadwaterError as error:
        return _explain(error, 2)
    except psycopg.Error as error:
        output.note(f"headwater: Postgres refused it: {error.diag.message_primary or error}")
        return 2


async def _awaited(work: Callable[[], Awaitable[int]]) -> int:
    return await work()


def _explain(error: HeadwaterError, code: int) -> int:
    output.note(f"headwater: {error.message}")
    if error.hint:
        output.note(f"  {error.hint}")
    return code


def load_app(path: str | None, *, needed: bool) -> App:
    """The app at ``module:name``, or one that knows the log only.

    Raises SettingError where one is needed and none is named, or none is there.
    """
    settings = Settings.from_environment()
    where = path or settings.app
    if not where:
        if needed:
            raise SettingError(
                "No app is named.",
                hint="Set HEADWATER_APP, or pass --app: module:name, or a folder of SELECTs.",
            )
        return App("headwater", settings=settings)
    module, _, name = where.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name or "app")
    except (ImportError, AttributeError) as error:
        raise SettingError(
            f"The app {where!r} cannot be loaded: {error}.", hint="Name it module:name."
        ) from error
    if not isinstance(found, App):
        raise SettingError(f"{where!r} is not a headwater.App.", hint="Name the app's variable.")
    return found


def main() -> None:
    """The entry point of the ``headwater`` command."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr
    )
    # The commands register themselves with the group above.
    importlib.import_module("headwater.entrances.cli.access")
    importlib.import_module("headwater.entrances.cli.commands")
    importlib.import_module("headwater.entrances.cli.views")
    importlib.import_module("headwater.entrances.cli.capture")
    importlib.import_module("headwater.entrances.cli.query")
    importlib.import_module("headwater.entrances.cli.schema")
    importlib.import_module("headwater.entrances.cli.history")
    importlib.import_module("headwater.entrances.cli.personal")
    importlib.import_module("headwater.entrances.cli.jobs")
    importlib.import_module("headwater.entrances.cli.outgoing")
    importlib.import_module("headwater.entrances.cli.sagas")
    importlib.import_module("headwater.entrances.cli.inboxes")
    gc.freeze()  # nothing made so far is garbage before the process ends, nor looked through then
    cli()
