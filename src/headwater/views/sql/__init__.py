"""Incremental SQL views: what a user's SELECT means, and whether batches can keep it.

Pure: text in, a description out, or a refusal that says why and what to do instead. This is the
only place that imports sqlglot. sqlglot parses and judges; the SQL that runs later is the
user's own text, cut at token boundaries, so that no rewriting can change its meaning.
"""

from headwater.views.sql.parse import parse_view_query
from headwater.views.sql.query import IncrementalQuery, Output, OutputKind, Reading
from headwater.views.sql.sources import DocumentSource, EventSource, Source, ViewSource

__all__ = [
    "DocumentSource",
    "EventSource",
    "IncrementalQuery",
    "Output",
    "OutputKind",
    "Reading",
    "Source",
    "ViewSource",
    "parse_view_query",
]
