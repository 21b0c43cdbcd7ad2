"""Files of one manifest as an Arrow dataset: those that a condition rules out are not opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from headwater.errors import QueryRefused
from headwater.events import Column
from headwater.stores.lake.parquet import schema_of
from headwater.views.batches import StoredFile


def dataset(
    url: str, files: Sequence[StoredFile], columns: Sequence[Column], tenant: str | None
) -> Any:
    """The rows of files below a URL, of one tenant or of all, with the column ``month``."""
    own = {column.name: column.expression for column in columns}
    schema = schema_of(columns)
    if "month" not in own:
        schema = schema.append(pa.field("month", pa.string()))
    system, root = _files_at(url)
    found = ds.FileSystemDataset.from_paths(
        [f"{root}/{file.path}" for file in files],
        schema=schema,
        format=ds.ParquetFileFormat(),
        filesystem=system,
        partitions=[_known(file, own) for file in files],
    )
    if tenant is None:
        return found
    if own.get("tenant") != "e.tenant":
        raise QueryRefused(
            "An event type has a field of its own called tenant, so its rows cannot be told apart.",
            hint="Query it without --tenant.",
        )
    return found.filter(pc.field("tenant") == tenant)


def _known(file: StoredFile, own: dict[str, str]) -> Any:
    """What is true of all rows of a file. Fields of an event's own that have these names say nothing."""
    known = pc.scalar(True)
    if own.get("position") == "e.position":
        known = (pc.field("position") > file.after) & (pc.field("position") <= file.upto)
    if "month" not in own:
        known &= pc.field("month") == file.month
    return known


def _files_at(url: str) -> tuple[Any, str]:
    """Arrow's own file system for a URL, and the path there."""
    if url.startswith("file://"):
        return fs.LocalFileSystem(), url.removeprefix("file://")
    if url.startswith("s3://"):
        said = os.environ
        region = said.get("AWS_REGION") or said.get("AWS_DEFAULT_REGION")
        endpoint = said.get("AWS_ENDPOINT_URL")
        return fs.S3FileSystem(region=region, endpoint_override=endpoint), url.removeprefix("s3://")
    raise QueryRefused(f"A lake at {url} cannot be queried.", hint="Use file:// or s3://.")
