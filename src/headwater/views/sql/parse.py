"""From a view's SQL to the query that batches can keep, or to the reason why they can't."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from headwater.errors import ViewDefinitionError
from headwater.views.sql.from_clause import Origin, read_origin, refuse_set_operation
from headwater.views.sql.outputs import grouped_names, name_items, read_output
from headwater.views.sql.query import KEEPS_NO_VALUE, IncrementalQuery, Output
from headwater.views.sql.rollup import composed, origin_view
from headwater.views.sql.sources import DocumentSource, Source
from headwater.views.sql.statement import refuse_clauses, split_clauses, split_items
from headwater.views.sql.tokens import Span, parse_statement, tokenize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_KEYS = 30
"""Postgres indexes 32 columns; the tenant and a distinct value need one each."""

GROUPING = (exp.Rollup, exp.Cube, exp.GroupingSets)


def parse_view_query(
    sql: str, *, name: str, key: tuple[str, ...] | None, sources: Mapping[str, Source]
) -> IncrementalQuery:
    """What an incremental view's SQL means.

    ``key`` names the outputs that GROUP BY holds, without the tenant, which is every view's
    implicit first key; None takes them as they stand in the SELECT. ``sources`` are what may be read, by name.

    Raises ``ViewDefinitionError``, whose message says why the query can't be kept batch by
    batch and whose hint says what to do instead.
    """
    try:
        return _parse(sql, name, key, sources)
    except ViewDefinitionError as error:
        raise ViewDefinitionError(f"View '{name}': {error.message}", hint=error.hint) from error


def _parse(
    sql: str, name: str, key: tuple[str, ...] | None, sources: Mapping[str, Source]
) -> IncrementalQuery:
    span = tokenize(sql)
    tree = _select(parse_statement(sql), span)
    refuse_clauses(tree)
    clauses = split_clauses(tree, span)
    _refuse_grouping_sets(tree)
    if (view := origin_view(clauses.origin, sources)) is not None:
        query = composed(tree, clauses, view, name)
        _check_key(query.key if key is None else key, query.outputs)
        return query if key is None else replace(query, key=key)
    origin = read_origin(tree, clauses.origin, sources)
    scope = origin.scope
    if clauses.condition is not None:
        scope.check(clauses.condition)
    items = name_items(split_items(tree, clauses))
    grouped = grouped_names(clauses.groups, items, scope)
    if not grouped and not any(item.is_aggregate for item in items):
        raise ViewDefinitionError(
            "The query keeps one row per event, and a view keeps one row per group.",
            hint="Add GROUP BY and an aggregate, or read the events by a feed or a fold.",
        )
    outputs = tuple(read_output(item, grouped, scope) for item in items)
    if key is None:
        key = tuple(output.name for output in outputs if output.kind == "key")
    _check_key(key, outputs)
    readings = origin.readings()
    _check_documents(origin, outputs)
    return IncrementalQuery(
        name=name,
        key=key,
        outputs=outputs,
        readings=readings,
        derived=None if origin.source is not None else scope.alias,
        condition=None if clauses.condition is None else clauses.condition.text,
        functions=tuple(scope.functions),
    )


def _select(tree: exp.Expr, span: Span) -> exp.Select:
    if isinstance(tree, exp.SetOperation):
        refuse_set_operation(tree)
        raise ViewDefinitionError(
            "A UNION ALL of whole results can't be kept: a group could come from either.",
            hint="Write SELECT ... FROM (SELECT ... UNION ALL SELECT ...) AS name GROUP BY ....",
        )
    if not isinstance(tree, exp.Select) or span.tokens[0].text.lower() not in {"select", "with"}:
        raise ViewDefinitionError(
            f"A view is a SELECT, and the SQL begins with '{span.tokens[0].text}'.",
            hint="Write one SELECT, without parentheses around it.",
        )
    return tree


def _refuse_grouping_sets(tree: exp.Select) -> None:
    group = tree.args.get("group")
    if group is None:
        return
    named = any(value for arg, value in group.args.items() if arg not in {"expressions", "all"})
    within = any(isinstance(node, GROUPING) for node in group.expressions)
    if named or within:
        raise ViewDefinitionError(
            "GROUPING SETS, ROLLUP and CUBE keep several groupings in one view.",
            hint="Declare one view for each grouping.",
        )


def _check_key(key: tuple[str, ...], outputs: Sequence[Output]) -> None:
    grouped = [output.name for output in outputs if output.kind == "key"]
    if len(set(key)) != len(key) or set(key) != set(grouped):
        expected = ", ".join(repr(output) for output in grouped)
        trailing = "," if len(grouped) == 1 else ""
        raise ViewDefinitionError(
            f"The declared key is {key!r}, and the query groups by ({expected}{trailing}).",
            hint="Declare exactly the grouped outputs as the key; the tenant is implied.",
        )
    if len(key) > MOST_KEYS:
        raise ViewDefinitionError(
            f"The key has {len(key)} columns, and at most {MOST_KEYS} can be indexed.",
            hint="Group by fewer columns, or by one row value cast to text.",
        )


def _check_documents(origin: Origin, outputs: Sequence[Output]) -> None:
    fold = next(
        (
            reading.source.name
            for reading in origin.readings()
            if isinstance(reading.source, DocumentSource)
        ),
        None,
    )
    if fold is None:
        return
    for output in outputs:
        if output.kind in KEEPS_NO_VALUE:
            shown = output.kind.replace("_distinct", "(DISTINCT x)")
            if output.kind not in {"min", "max", "count_distinct"}:
                shown = output.text
            raise ViewDefinitionError(
                f"The documents of {fold} change and vanish, and {shown} can't be taken back: "
                "the next smallest, largest or equal value isn't known.",
                hint="Read the events instead, or keep count, sum or avg of the documents.",
            )
