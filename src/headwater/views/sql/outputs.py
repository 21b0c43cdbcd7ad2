"""The select list and GROUP BY: which output is a key, and which is what aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from headwater.errors import ViewDefinitionError
from headwater.views.sql.functions import (
    KEPT_AGGREGATES,
    OF_SEVERAL,
    OTHER_AGGREGATES,
    functions_called,
    inside,
)
from headwater.views.sql.of_several import read_of_several
from headwater.views.sql.query import Output, OutputKind
from headwater.views.sql.scalars import (
    REFUSED,
    Scope,
    folded,
    normalised,
    reads_tenant,
    refuse_aggregates,
    sealed_refused,
)
from headwater.views.sql.tokens import Span, is_word, name_of, parse_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.views.sql.statement import Item

LONGEST_NAME_BYTES = 63
ONE_AGGREGATE = (
    "Let each output be one aggregate, at most with a cast around it: keep the parts as outputs "
    "of their own and combine them when reading."
)


@dataclass(frozen=True, slots=True)
class NamedItem:
    """An item of the select list with the name of its output."""

    name: str
    span: Span
    is_aggregate: bool


def name_items(items: Sequence[Item]) -> list[NamedItem]:
    """The items with their names, which must be there, unique and short enough."""
    named: list[NamedItem] = []
    for position, item in enumerate(items, start=1):
        tree = parse_expression(item.span)
        name = item.name or (folded(tree.this) if isinstance(tree, exp.Column) else None)
        if name is None:
            raise ViewDefinitionError(
                f"Output {position}, '{item.span.text}', has no name.", hint="Write AS and a name."
            )
        _check_name(name, {other.name for other in named})
        called = {function.removeprefix("pg_catalog.") for function in functions_called(item.span)}
        aggregated = bool(called & (KEPT_AGGREGATES | OTHER_AGGREGATES))
        aggregated = aggregated or tree.find(exp.AggFunc) is not None
        named.append(NamedItem(name=name, span=item.span, is_aggregate=aggregated))
    return named


def _check_name(name: str, taken: set[str]) -> None:
    if name == "tenant":
        raise ViewDefinitionError(
            "The tenant is every view's first column and first key already.",
            hint="Leave the tenant out of SELECT and GROUP BY.",
        )
    if name in taken:
        raise ViewDefinitionError(
            f"Two outputs are named '{name}'.", hint="Give each output a name of its own."
        )
    if len(name.encode()) > LONGEST_NAME_BYTES or "\x00" in name:
        raise ViewDefinitionError(
            f"The name '{name}' is longer than Postgres's {LONGEST_NAME_BYTES} bytes.",
            hint="Choose a shorter name.",
        )


def grouped_names(groups: Span | None, items: Sequence[NamedItem], scope: Scope) -> set[str]:
    """The outputs that GROUP BY names, by ordinal, by alias or by expression."""
    if groups is None:
        return set()
    if groups.tokens[0].token_type in {TokenType.ALL, TokenType.DISTINCT}:
        raise ViewDefinitionError(
            "GROUP BY ALL and GROUP BY DISTINCT leave open what the keys are.",
            hint="Name the grouped outputs.",
        )
    names: set[str] = set()
    for group in groups.split(TokenType.COMMA):
        names.add(_grouped_output(group, items, scope).name)
    return names


def _grouped_output(group: Span, items: Sequence[NamedItem], scope: Scope) -> NamedItem:
    if not len(group):
        raise ViewDefinitionError("GROUP BY has an empty item.", hint="Look for a comma too many.")
    if len(group) == 1 and group.tokens[0].token_type == TokenType.NUMBER:
        return _by_ordinal(group.text, items)
    tree = normalised(parse_expression(group))
    if isinstance(tree, exp.Column) and folded(tree.this) == "tenant" and scope.tenant:
        _check_name("tenant", set())
    # Postgres looks a bare name up among the input columns first, then among the outputs.
    if len(group) == 1 and is_word(group.tokens[0]):
        name = name_of(group.tokens[0])
        found = next((item for item in items if item.name == name), None)
        if found is not None and name not in scope.columns:
            return _refuse_grouped_aggregate(found)
    scope.check(group)
    for item in items:
        if not item.is_aggregate and normalised(parse_expression(item.span)) == tree:
            return item
    raise ViewDefinitionError(
        f"GROUP BY '{group.text}' isn't among the outputs, so rows could not be told apart.",
        hint="Select it as well, and add its name to the view's key.",
    )


def _by_ordinal(text: str, items: Sequence[NamedItem]) -> NamedItem:
    if not text.isdigit() or not 1 <= int(text) <= len(items):
        raise ViewDefinitionError(
            f"GROUP BY {text} is no output: there are {len(items)}.",
            hint="Count the select list from 1.",
        )
    return _refuse_grouped_aggregate(items[int(text) - 1])


def _refuse_grouped_aggregate(item: NamedItem) -> NamedItem:
    if item.is_aggregate:
        raise ViewDefinitionError(
            f"GROUP BY names '{item.name}', which is an aggregate.",
            hint="Group by the outputs that are not aggregates.",
        )
    return item


def read_output(item: NamedItem, grouped: set[str], scope: Scope) -> Output:
    """The item as a key or an aggregate."""
    if item.is_aggregate:
        return _read_aggregate(item, scope)
    tree = scope.check(item.span)
    if reads_tenant(tree, scope):
        raise ViewDefinitionError(
            "The tenant is every view's first column and first key already.",
            hint="Leave the tenant out of SELECT and GROUP BY.",
        )
    if item.name not in grouped:
        raise ViewDefinitionError(
            f"The output '{item.name}' is neither an aggregate nor in GROUP BY, so a group would "
            "hold many values of it.",
            hint="Group by it and add it to the view's key, or aggregate it, for instance max(x).",
        )
    _refuse_collation(tree)
    return Output(name=item.name, kind="key", text=item.span.text, argument=item.span.text)


def _refuse_collation(tree: exp.Expr) -> None:
    if tree.find(exp.Collate) is not None:
        raise ViewDefinitionError(
            "COLLATE in an output isn't kept: the view's table has the database's collation.",
            hint="Apply COLLATE when reading; in WHERE it may stay.",
        )


def _read_aggregate(item: NamedItem, scope: Scope) -> Output:
    for node in parse_expression(item.span).walk():
        for refused in (exp.Query, exp.Window, exp.WithinGroup):
            if isinstance(node, refused):
                reason, way_out = REFUSED[exp.Query if refused is exp.Query else refused]
                raise ViewDefinitionError(reason, hint=way_out)
    refuse_aggregates(functions_called(item.span))
    call = _without_cast(item.span)
    name = name_of(call.tokens[0]) if is_word(call.tokens[0]) else ""
    is_call = len(call) > 2 and call.tokens[1].token_type == TokenType.L_PAREN
    if name not in KEPT_AGGREGATES or not is_call or not _is_one_aggregate(item.span):
        raise _calculation(item.name)
    inner = inside(call.cut(1))
    condition = _condition(call.cut(len(inner) + 3), item.name)
    if condition is not None:
        scope.check(condition)
    if name in OF_SEVERAL:
        if len(call) != len(item.span):
            raise ViewDefinitionError(
                f"The output '{item.name}' puts something around {name}().",
                hint="Leave casts and parentheses out and apply them when reading.",
            )
        return read_of_several(name, inner, item, condition, scope)
    kind, argument = _argument(name, inner, item.name)
    if argument is not None:
        tree = scope.check(argument)
        _refuse_collation(tree)
        if kind not in {"count", "count_distinct"} and scope.is_sealed(tree):
            raise sealed_refused(folded(tree.unnest().this), parse_expression(item.span))
    return Output(
        name=item.name,
        kind=kind,
        text=item.span.text,
        argument=None if argument is None else argument.text,
        condition=None if condition is None else condition.text,
    )


def _argument(name: str, inner: Span, output: str) -> tuple[OutputKind, Span | None]:
    kinds: dict[str, OutputKind] = {
        "count": "count",
        "sum": "sum",
        "min": "min",
        "max": "max",
        "avg": "avg",
    }
    kind = kinds[name]
    if len(inner) and inner.tokens[0].token_type == TokenType.ALL:
        inner = inner.cut(1)
    if len(inner) and inner.tokens[0].token_type == TokenType.DISTINCT:
        if kind != "count":
            raise ViewDefinitionError(
                f"{name}(DISTINCT ...) needs every value of its group again.",
                hint="Only count(DISTINCT x) is kept; min and max need no DISTINCT.",
            )
        kind, inner = "count_distinct", inner.cut(1)
    if len(inner) == 1 and inner.tokens[0].token_type == TokenType.STAR and kind == "count":
        return kind, None
    if not len(inner) or len(inner.split(TokenType.COMMA)) != 1:
        raise ViewDefinitionError(
            f"The aggregate of '{output}' takes exactly one argument.",
            hint="For several, write one row value: count(DISTINCT (a, b)::text).",
        )
    if inner.find(TokenType.ORDER_BY) is not None:
        raise ViewDefinitionError(
            f"ORDER BY inside the aggregate of '{output}' has no effect on its value.",
            hint="Leave it out.",
        )
    return kind, inner


def _condition(rest: Span, output: str) -> Span | None:
    """The condition of FILTER (WHERE ...), when nothing else follows the call."""
    if not len(rest):
        return None
    is_filter = (
        len(rest) > 3
        and rest.tokens[0].text.lower() == "filter"
        and rest.cut(1).is_wrapped()
        and rest.tokens[2].token_type == TokenType.WHERE
    )
    if not is_filter:
        raise _calculation(output)
    return rest.cut(3, -1)


def _calculation(output: str) -> ViewDefinitionError:
    return ViewDefinitionError(
        f"The output '{output}' calculates with aggregates, and only an aggregate itself can be "
        "merged with a batch.",
        hint=ONE_AGGREGATE,
    )


def _is_one_aggregate(span: Span) -> bool:
    """Whether the tree is one aggregate with FILTER at most, in parentheses and one cast."""
    tree = parse_expression(span).unnest()
    if type(tree) is exp.Cast:
        tree = tree.this.unnest()
    if isinstance(tree, exp.Filter):
        tree = tree.this
    own = isinstance(tree, exp.Anonymous) and tree.name.lower() in OF_SEVERAL
    return own or isinstance(tree, exp.AggFunc)


def _without_cast(span: Span) -> Span:
    """The expression inside parentheses and at most one cast.

    One, because the view's table keeps the aggregate and a reader sees it cast to the output's
    type: an intermediate type would be lost.
    """
    inner = _without_parentheses(span)
    casts = [i for i, token in inner.top_level() if token.token_type == TokenType.DCOLON]
    if casts:
        return _without_parentheses(inner.cut(0, casts[0])) if len(casts) == 1 else span
    is_cast = len(inner) > 2 and inner.tokens[0].text.lower() == "cast"
    if is_cast and inner.cut(1).is_wrapped():
        body = inner.cut(2, -1)
        end = body.find(TokenType.ALIAS)
        return span if end is None else _without_parentheses(body.cut(0, end))
    return inner


def _without_parentheses(span: Span) -> Span:
    while span.is_wrapped():
        span = span.cut(1, -1)
    return span
