"""Which expressions per row are understood, and which columns they read.

An allowlist of node kinds: what is not on it is refused, whatever it may mean.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from headwater.errors import ViewDefinitionError
from headwater.views.sql.functions import (
    OTHER_AGGREGATES,
    functions_called,
    refuse_unrepeatable,
)
from headwater.views.sql.tokens import Span, parse_expression

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALLOWED: tuple[type[exp.Expr], ...] = (
    exp.AtTimeZone,
    exp.Between,
    exp.Binary,
    exp.BitString,
    exp.Boolean,
    exp.Bracket,
    exp.ByteString,
    exp.Column,
    exp.ColumnDef,
    exp.DataType,
    exp.DataTypeParam,
    exp.Func,
    exp.HexString,
    exp.Identifier,
    exp.In,
    exp.Interval,
    exp.IntervalSpan,
    exp.JSON,
    exp.JSONPath,
    exp.JSONPathPart,
    exp.Literal,
    exp.Null,
    exp.RawString,
    exp.Slice,
    exp.Tuple,
    exp.Unary,
    exp.UnicodeString,
    exp.Var,
    exp.All,
    exp.Any,
)
SUBQUERY = (
    (
        "A subquery inside an expression can't be kept batch by batch: the rows it reads change "
        "without this view noticing."
    ),
    "Write the value into the event, or keep a fold.",
)
REFUSED: Mapping[type[exp.Expr], tuple[str, str]] = {
    exp.Query: SUBQUERY,
    exp.Exists: SUBQUERY,
    exp.Window: (
        "A window function looks at other rows of the result, which a batch doesn't hold.",
        "Keep the aggregates here and apply the window function when reading.",
    ),
    exp.WithinGroup: (
        "An ordered-set aggregate needs every row of its group again.",
        "Use a fold, or a periodic full refresh.",
    ),
    exp.Placeholder: (
        "A view's SQL has no parameters: nobody could supply them when a batch arrives.",
        "Write the value itself; two literals side by side need an operator.",
    ),
    exp.Parameter: (
        "A view's SQL has no parameters: nobody could supply them when a batch arrives.",
        "Write the value itself; for an absolute value call abs(x).",
    ),
    exp.Star: (
        "A star stands for columns that may change with the event's type.",
        "Name the columns.",
    ),
    exp.Operator: (
        "OPERATOR(...) names an operator whose repeatability can't be checked.",
        "Use the operator's plain form or a function.",
    ),
    exp.ObjectIdentifier: (
        "A cast to a catalog type such as regclass depends on the database's catalog.",
        "Write the value into the event.",
    ),
}


@dataclass(slots=True)
class Scope:
    """The columns an expression may name, and what has been used of them so far."""

    alias: str
    columns: tuple[str, ...]
    tenant: str | None
    """The column that is every view's implicit first key, if it can be named here."""
    used: set[str] = field(default_factory=set)
    functions: dict[str, None] = field(default_factory=dict)
    position: str | None = None
    """The column of an event's position, if it can be named here."""
    sealed: frozenset[str] = frozenset()
    """The columns that hold sealed texts: they may be equal to one another, and say nothing else."""

    def check(self, span: Span) -> exp.Expr:
        """The expression's tree, once everything in it is understood and repeatable."""
        refuse_unrepeatable(span)
        tree = parse_expression(span)
        for node in tree.walk():
            self._check_node(node)
        self._check_sealed(tree)
        called = functions_called(span)
        refuse_aggregates(called)
        self.functions.update(dict.fromkeys(called))
        return tree

    def _check_node(self, node: exp.Expr) -> None:
        for refused, (reason, way_out) in REFUSED.items():
            if isinstance(node, refused):
                raise ViewDefinitionError(reason, hint=way_out)
        if isinstance(node, exp.AggFunc):
            refuse_aggregates([node.sql_name().lower()])
            raise ViewDefinitionError(
                "An aggregate stands where a value per row is needed.",
                hint="Let each output be one aggregate, and combine them when reading.",
            )
        if not isinstance(node, ALLOWED):
            raise ViewDefinitionError(
                f"'{node.sql(dialect='postgres')}' ({type(node).__name__}) isn't understood as a "
                "value per row.",
                hint="Write it with plain operators and immutable functions, or keep a fold.",
            )
        if isinstance(node, exp.Column):
            self._check_column(node)

    def is_sealed(self, tree: exp.Expr) -> bool:
        """Whether an expression is a sealed column and nothing else."""
        tree = tree.unnest()
        return isinstance(tree, exp.Column) and folded(tree.this) in self.sealed

    def _check_sealed(self, tree: exp.Expr) -> None:
        for column in tree.find_all(exp.Column):
            if self.is_sealed(column) and not self.is_sealed(tree):
                above = column.parent
                if not (isinstance(above, exp.Is) and isinstance(above.expression, exp.Null)):
                    raise sealed_refused(folded(column.this), tree)

    def _check_column(self, column: exp.Column) -> None:
        if isinstance(column.this, exp.Star):
            reason, way_out = REFUSED[exp.Star]
            raise ViewDefinitionError(reason, hint=way_out)
        qualifier = column.args.get("table")
        if column.args.get("db") is not None:
            raise ViewDefinitionError(
                f"The column '{column.sql(dialect='postgres')}' is qualified by more than one name.",
                hint=f"Write {self.alias}.{folded(column.this)}.",
            )
        if qualifier is not None and folded(qualifier) != self.alias:
            raise ViewDefinitionError(
                f"The query has no relation named '{folded(qualifier)}'.",
                hint=did_you_mean(folded(qualifier), [self.alias]),
            )
        name = folded(column.this)
        if name not in self.columns:
            raise ViewDefinitionError(
                f"{self.alias} has no column '{name}'.", hint=did_you_mean(name, self.columns)
            )
        self.used.add(name)


def sealed_refused(column: str, tree: exp.Expr) -> ViewDefinitionError:
    """The error for an expression that is of what a sealed text says."""
    return ViewDefinitionError(
        f"'{tree.sql(dialect='postgres')}' is of the sealed text in '{column}', and not of what it says.",
        hint="Group by the column itself, count it or ask whether it IS NULL; what needs its text becomes a fold "
        f"with opens=['{column}'].",
    )


def reads_tenant(tree: exp.Expr, scope: Scope) -> bool:
    """Whether the expression names the tenant."""
    return any(folded(column.this) == scope.tenant for column in tree.find_all(exp.Column))


def folded(identifier: exp.Expr) -> str:
    """The identifier's name as Postgres reads it."""
    quoted = isinstance(identifier, exp.Identifier) and identifier.quoted
    return identifier.name if quoted else identifier.name.lower()


def refuse_aggregates(names: Iterable[str]) -> None:
    """Refuse aggregates whose merge needs more than their last value."""
    for name in names:
        if name.removeprefix("pg_catalog.") in OTHER_AGGREGATES:
            raise ViewDefinitionError(
                f"The aggregate {name}() can't be merged from its last value and a batch.",
                hint="Of the aggregates count, sum, min, max, avg, first, last, approx_quantile and "
                "approx_count_distinct can; for others keep a fold, or use a periodic full refresh.",
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known names, or all of them if few."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {', '.join(choices)}." if choices else "There are none."


def normalised(tree: exp.Expr) -> exp.Expr:
    """The tree as it compares: without qualifiers and outer parentheses, names folded."""

    def plain(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return exp.column(exp.to_identifier(folded(node.this), quoted=True))
        return node

    while isinstance(tree, exp.Paren):
        tree = tree.this
    return tree.copy().transform(plain)
