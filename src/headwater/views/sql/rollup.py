"""SQL views over SQL views: coarser groups of the same events.

The finer view's groups are brought together by their states, not by what readers see of them, so that an
average of averages is an average. It comes out as a query over the finer view's own source, by keys that are
composed: each level has a checkpoint of its own and rests on the log alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot.tokenizer_core import TokenType

from headwater.errors import ViewDefinitionError
from headwater.views.sql.outputs import (
    NamedItem,
    grouped_names,
    name_items,
    read_output,
)
from headwater.views.sql.query import IncrementalQuery, Output
from headwater.views.sql.scalars import Scope, did_you_mean
from headwater.views.sql.sources import Source, ViewSource
from headwater.views.sql.statement import Clauses, split_items
from headwater.views.sql.tokens import Span, is_word, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlglot import exp


def origin_view(origin: Span, sources: Mapping[str, Source]) -> ViewSource | None:
    """The SQL view that FROM names, if it names one."""
    first = origin.tokens[0] if len(origin) else None
    found = sources.get(name_of(first)) if first is not None and is_word(first) else None
    return found if isinstance(found, ViewSource) else None


def composed(tree: exp.Select, clauses: Clauses, view: ViewSource, name: str) -> IncrementalQuery:
    """The query over the view's own source that gives the coarser groups."""
    finer = view.query
    if len(clauses.origin) != 1:
        raise ViewDefinitionError(
            f"'{clauses.origin.text}' after FROM isn't understood.",
            hint=f"Write FROM {view.name}, without an alias.",
        )
    keys = {key.name: key.text for key in finer.keys}
    scope = Scope(alias=view.name, columns=tuple(keys), tenant=None)
    condition = finer.condition
    if clauses.condition is not None:
        scope.check(clauses.condition)
        own = _over_source(clauses.condition, keys, view.name)
        condition = own if condition is None else f"({condition}) AND ({own})"
    items = name_items(split_items(tree, clauses))
    grouped = grouped_names(clauses.groups, items, scope)
    outputs = tuple(_output(item, grouped, scope, keys, view) for item in items)
    return replace(
        finer,
        name=name,
        key=tuple(output.name for output in outputs if output.kind == "key"),
        outputs=outputs,
        condition=condition,
        functions=tuple(dict.fromkeys((*finer.functions, *scope.functions))),
        over=view.name,
    )


def _output(
    item: NamedItem, grouped: set[str], scope: Scope, keys: Mapping[str, str], view: ViewSource
) -> Output:
    if not item.is_aggregate:
        text = _over_source(item.span, keys, view.name)
        return replace(read_output(item, grouped, scope), text=text, argument=text)
    tokens = item.span.tokens
    is_merged = (
        len(tokens) == 4 and name_of(tokens[0]) == "merged" and is_word(tokens[2])
        and tokens[1].token_type == TokenType.L_PAREN
    )  # fmt: skip
    if not is_merged:
        raise ViewDefinitionError(
            f"The output '{item.name}' is no merge of an output of {view.name!r}.",
            hint="Write merged(x): it brings counts, sums, averages and the others together as they are.",
        )
    wanted = name_of(tokens[2])
    found = {output.name: output for output in view.query.aggregates}
    if wanted not in found:
        raise ViewDefinitionError(
            f"The view {view.name!r} has no aggregate '{wanted}'.", hint=did_you_mean(wanted, found)
        )
    return replace(found[wanted], name=item.name)


def _over_source(span: Span, keys: Mapping[str, str], view: str) -> str:
    """The expression with each key of the view replaced by what the key is."""
    text, at = [], span.tokens[0].start
    tokens = span.tokens
    for index, token in enumerate(tokens):
        following = tokens[index + 1].token_type if index + 1 < len(tokens) else None
        before = tokens[index - 1].token_type if index else None
        if not is_word(token) or following in {TokenType.L_PAREN, TokenType.DOT}:
            continue
        name = name_of(token)
        is_field = index > 1 and tokens[index - 2].text.lower() == "extract"
        if name not in keys or is_field or before in {TokenType.DCOLON, TokenType.ALIAS}:
            continue
        start = token.start
        if before == TokenType.DOT and index > 1 and name_of(tokens[index - 2]) == view:
            start = tokens[index - 2].start
        text += [span.sql[at:start], f"({keys[name]})"]
        at = token.end + 1
    return "".join([*text, span.sql[at : tokens[-1].end + 1]])
