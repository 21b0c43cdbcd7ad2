"""Aggregates of Headwater's own: first and last, approximate quantiles and distinct counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot.tokenizer_core import TokenType

from headwater.errors import ViewDefinitionError
from headwater.views.sql.query import Output, OutputKind

if TYPE_CHECKING:
    from headwater.views.sql.outputs import NamedItem
    from headwater.views.sql.scalars import Scope
    from headwater.views.sql.tokens import Span

_WRITTEN = {
    "first": "first(x) or first(x, occurred_at)",
    "last": "last(x) or last(x, occurred_at)",
    "approx_quantile": "approx_quantile(x, 0.95)",
    "approx_count_distinct": "approx_count_distinct(x)",
}


def read_of_several(
    name: str, inner: Span, item: NamedItem, condition: Span | None, scope: Scope
) -> Output:
    """The output of ``name(inner)``."""
    if name == "merged":
        raise ViewDefinitionError(
            f"'{item.name}' merges an output of another view, and this query reads none.",
            hint="Read a SQL view declared before, as in FROM by_minute.",
        )
    arguments = inner.split(TokenType.COMMA) if len(inner) else []
    fewest, most = {"first": (1, 2), "last": (1, 2), "approx_quantile": (2, 2)}.get(name, (1, 1))
    plain = all(
        len(one) and one.tokens[0].token_type not in {TokenType.DISTINCT, TokenType.ALL, TokenType.STAR}
        and one.find(TokenType.ORDER_BY) is None
        for one in arguments
    )  # fmt: skip
    if not (fewest <= len(arguments) <= most and plain):
        raise ViewDefinitionError(
            f"The aggregate of '{item.name}' isn't understood.", hint=f"Write {_WRITTEN[name]}."
        )
    scope.check(arguments[0])
    output = Output(
        item.name,
        "about_distinct",
        item.span.text,
        argument=arguments[0].text,
        condition=None if condition is None else condition.text,
    )
    if name == "approx_count_distinct":
        return output
    if name == "approx_quantile":
        return replace(output, kind="quantile", level=_level(arguments[1], item.name))
    if len(arguments) == 2:
        scope.check(arguments[1])
    if scope.position is None:
        raise ViewDefinitionError(
            f"'{item.name}' needs the event's position, which isn't among the columns.",
            hint="Select position in each branch of the UNION ALL; a field of that name hides it.",
        )
    scope.used.add(scope.position)
    order = arguments[1].text if len(arguments) == 2 else None
    alias = scope.alias.replace('"', '""')
    position = f'"{alias}"."{scope.position}"'
    kind: OutputKind = "first" if name == "first" else "last"
    return replace(output, kind=kind, order=order, position=position)


def _level(span: Span, output: str) -> float:
    tokens = span.tokens
    if len(tokens) == 1 and tokens[0].token_type == TokenType.NUMBER:
        level = float(tokens[0].text)
        if 0 <= level <= 1:
            return level
    raise ViewDefinitionError(
        f"The quantile of '{output}' is '{span.text}'.",
        hint="Write a number from 0 to 1, as in approx_quantile(x, 0.95).",
    )
