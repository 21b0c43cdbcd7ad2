"""States that Postgres has no aggregate of: first and last, quantiles and distinct counts, kept as sketches.

``first`` and ``last`` keep the order and the value as one text, which is least or greatest byte by byte.
A sketch is a sorted array of numbers, each a small integer (above 40 bits) and what is known of it (below):

- ``tally``: how many values are in each bucket of a logarithmic scale. The upper bound of a positive bucket is
  the (1 + e) / (1 - e)-fold of the one before, so a value between the bounds is at most the part e off, by
  which any of the bucket may stand for it (Masson, Rim, Lee: DDSketch, 2019). Merged by adding.
- ``registers``: of 2^12 registers, into which values fall by a part of their hash, the longest run of zeros that
  the rest of it began with (Flajolet and others: HyperLogLog, 2007). Merged by the larger.
"""

from __future__ import annotations

from psycopg import sql

from headwater.stores.postgres.sql_view_text import enclosed, template
from headwater.views.batches import TALLY_GAMMA

SKETCHED = frozenset({"first", "last", "tally", "registers"})
OUTPUTS = {"quantile": "tally", "about_distinct": "registers"}
"""The states of outputs that are not named like them."""
_FILE = "sql_view_sketches.sql"


def sketch_text(kind: str) -> str:
    """The SQL that brings the entries of a sketch into order, its placeholder ``entries`` still open."""
    return template(kind, file=_FILE).as_string()


def sketch_of(kind: str, entries: sql.Composable) -> sql.Composable:
    """A sketch of entries in any order, or of two sketches' together."""
    return template(kind, file=_FILE).format(entries=entries)


def entry_of(
    kind: str, value: sql.Composable, order: str | None, position: str | None
) -> sql.Composable:
    """What one row adds to a state."""
    if kind == "tally":
        return template("bucket", file=_FILE).format(value=value, gamma=sql.Literal(TALLY_GAMMA))
    if kind == "registers":
        return template("register", file=_FILE).format(value=value)
    assert position is not None
    if order is None:
        by_position = template("by_position", file=_FILE)
        return by_position.format(value=value, position=enclosed(position))
    by_time = template("by_time", file=_FILE)
    return by_time.format(value=value, position=enclosed(position), order=enclosed(order))


def shown(kind: str, state: sql.Composable, level: float | None) -> sql.Composable:
    """What readers see of a state."""
    if kind in {"first", "last"}:
        return template("ordered_value", file=_FILE).format(state=state)
    if kind == "registers":
        return template("distinct", file=_FILE).format(state=state)
    return template("quantile", file=_FILE).format(
        state=state, level=sql.Literal(level), gamma=sql.Literal(TALLY_GAMMA)
    )


def described(kind: str, argument: str) -> sql.Composable:
    """An expression over a group of the type that readers see."""
    return template(f"{kind}_type", file=_FILE).format(value=enclosed(argument))
