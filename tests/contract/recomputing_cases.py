"""Random expressions of Postgres's SQL, by type: what recomputing elsewhere is tried on."""

from __future__ import annotations

import random

_LEAVES = {
    "int": ["quantity", "version", "3", "-2", "0", "char_length(customer)", "extract(dow FROM at)::int"],
    "dec": ["total", "fee", "0.5", "-12.345", "quantity::numeric", "total::numeric(30, 1)", "extract(doy FROM day)"],
    "float": ["weight", "0.1", "quantity", "weight::float8"],
    "text": ["customer", "stream", "'né'", "''", "quantity::text", "day::text", "gift::text", "reference::text"],
    "bool": ["gift", "true", "total > 0", "customer IS NULL", "at < '2026-03-29 00:59:59.999999+00'"],
    "time": ["at", "occurred_at", "recorded_at", "day::timestamptz", "timestamptz '2026-10-25 02:00:00+02'", "at AT TIME ZONE 'UTC'"],
    "date": ["day", "at::date", "date '2024-02-29'"],
}  # fmt: skip
_GROWN = {
    "int": ["{int} + {int}", "{int} - {int}", "({int}) * {int}", "({int}) / nullif({int}, 0)", "{int} / {int}", "({int}) % {int}", "abs({int})",
            "CASE WHEN {bool} THEN {int} END", "coalesce({int}, {int})", "nullif({int}, {int})", "({dec})::bigint",
            "greatest({int}, {int})", "-({int})", "({time})::date - {date}", "extract(hour FROM {time})::int"],
    "dec": ["{dec} + {dec}", "{dec} - ({int})", "({dec}) * ({dec})", "round({dec}, 1)", "weight::numeric", "(-weight)::numeric", "coalesce(weight, 0.1)::numeric", "round({dec})", "ceil({dec})", "floor({dec})", "trunc({dec})",
            "abs({dec})", "CASE {text} WHEN {text} THEN {dec} ELSE {int} END", "coalesce({dec}, {int}, 0)", "least({dec}, {dec})",
            "({dec})::numeric(32, 2)", "({dec}) / 3", "-({dec})", "({int})::numeric * ({dec})", "extract(second FROM {time})"],
    "float": ["{float} + {float}", "({float}) * ({int})", "({float}) / 7", "abs({float})", "CASE WHEN {bool} THEN {float} ELSE 0 END", "({dec})::float8 - {float}"],
    "text": ["{text} || {text}", "left({text}, 2)", "substring({text}, 2)", "substring({text}, 2, 1)", "replace({text}, {text}, {text})",
             "btrim({text})", "coalesce({text}, 'x')", "CASE WHEN {bool} THEN {text} ELSE {text} END", "nullif({text}, '')", "lower({text})", "({dec})::text", "to_char({time}, 'DD')"],
    "bool": ["{int} < {int}", "{dec} >= ({int})", "{text} = {text}", "({text}) <> 'c1'", "{time} <= {time}", "{bool} AND {bool}", "({bool}) OR {bool}",
             "NOT ({bool})", "{dec} IS NOT NULL", "({bool}) IS NOT TRUE", "({bool}) IS FALSE", "{int} IN (1, {int}, 3)", "{text} NOT IN ('c1', 'c2')", "{dec} BETWEEN {int} AND {dec}",
             "{text} LIKE '%é%'", "({text}) NOT LIKE 'c_'", "{text} IS DISTINCT FROM {text}", "{int} IS NOT DISTINCT FROM {int}", "({text}) < 'c3'", "{date} > {date}",
             "{time} >= {date}", "{text} ~ 'c'", "{int} = {dec}", "{float} > {int}"],
    "time": ["date_trunc('{unit}', {time})", "coalesce({time}, {time})", "CASE WHEN {bool} THEN {time} END", "greatest({time}, {time})", "date_trunc('{unit}', {date})"],
    "date": ["({time})::date", "coalesce({date}, {date})", "least({date}, {date})"],
}  # fmt: skip
_UNITS = ["minute", "hour", "day", "week", "month", "quarter", "year", "second", "decade"]


def expression(chosen: random.Random, kind: str, depth: int) -> str:
    """An expression of a type, as deep at most."""
    if depth == 0 or chosen.random() < 0.2:
        return chosen.choice(_LEAVES[kind])
    text, grown = chosen.choice(_GROWN[kind]), ""
    while text:
        before, brace, rest = text.partition("{")
        grown += before
        if brace:
            inner, _, rest = rest.partition("}")
            grown += chosen.choice(_UNITS) if inner == "unit" else expression(chosen, inner, depth - 1)  # fmt: skip
        text = rest
    return grown


def view(chosen: random.Random) -> str:
    """A view over one type's events, of random keys and aggregates."""
    make = lambda kind: expression(chosen, kind, chosen.randint(0, 3))  # noqa: E731
    key = make(chosen.choice(["int", "dec", "text", "bool", "time", "date"]))
    kind = lambda *kinds: make(chosen.choice(kinds))  # noqa: E731
    outputs = {
        "n": "count(*)", "s": f"sum({kind('int', 'dec', 'float')})", "a": f"avg({kind('int', 'dec')})",
        "lo": f"min({kind('int', 'dec', 'float', 'time', 'date', 'text')})", "hi": f"max({kind('dec', 'time', 'text')})",
        "d": f"count(DISTINCT {kind('int', 'dec', 'text', 'time', 'bool')})", "c": f"count({kind('int', 'text')})",
        "f": f"first({kind('dec', 'text', 'date', 'int')}, at)", "l": f"last({kind('dec', 'text', 'time')})",
        "w": f"sum(fee) FILTER (WHERE {make('bool')})",
    }  # fmt: skip
    some = {name: outputs[name] for name in chosen.sample(list(outputs), 3)}
    listed = ", ".join(f"{text} AS {name}" for name, text in (some | {"n": "count(*)"}).items())
    return f"SELECT {key} AS k, {listed} FROM shop.placed WHERE {make('bool')} GROUP BY 1"
