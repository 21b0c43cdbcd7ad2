"""A SELECT's clauses: those that are refused, and the text of those that are understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from headwater.errors import ViewDefinitionError

if TYPE_CHECKING:
    from headwater.views.sql.tokens import Span

UNDERSTOOD = frozenset({"expressions", "from_", "where", "group"})
READING = (
    "{clause} looks at the whole result, and a batch holds only a part of it.",
    "Leave {clause} out and apply it when reading the view.",
)
JOIN = (
    "A join needs the other side's rows again with every batch.",
    (
        "Keep a fold that brings them together, or two views joined when reading; event types "
        "with like columns can be read by UNION ALL."
    ),
)
REFUSED_CLAUSES: dict[str, tuple[str, str]] = {
    "joins": JOIN,
    "laterals": JOIN,
    "with_": (
        "A WITH clause can't be followed batch by batch.",
        "Write one SELECT; a UNION ALL of event types goes into FROM (...) AS name.",
    ),
    "distinct": (
        "SELECT DISTINCT compares rows across batches.",
        "Use GROUP BY, or count(DISTINCT x).",
    ),
    "having": READING,
    "order": READING,
    "limit": READING,
    "offset": READING,
    "qualify": READING,
    "windows": (
        "A window looks at other rows of the result, which a batch doesn't hold.",
        "Keep the aggregates here and apply the window function when reading.",
    ),
    "locks": (
        "FOR UPDATE and FOR SHARE lock rows, and a view only reads the log.",
        "Leave the locking clause out.",
    ),
    "into": (
        "SELECT INTO makes a table, and a view has a table of its own.",
        "Leave INTO out.",
    ),
}


@dataclass(frozen=True, slots=True)
class Clauses:
    """The text of each clause, without its keyword."""

    items: Span
    origin: Span
    condition: Span | None
    groups: Span | None


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the select list: its expression and its alias, if it has one."""

    span: Span
    name: str | None


def refuse_clauses(tree: exp.Select) -> None:
    """Refuse every clause that batches can't keep, and a SELECT without FROM."""
    for name, value in tree.args.items():
        if not value or name in UNDERSTOOD:
            continue
        clause = name.strip("_").upper()
        clause = {"ORDER": "ORDER BY"}.get(clause, clause)
        reason, way_out = REFUSED_CLAUSES.get(
            name,
            (
                "The clause {clause} isn't understood.",
                "Keep to SELECT, FROM, WHERE and GROUP BY.",
            ),
        )
        raise ViewDefinitionError(reason.format(clause=clause), hint=way_out.format(clause=clause))
    if tree.args.get("from_") is None:
        raise ViewDefinitionError(
            "The SELECT has no FROM, so no event would ever change it.",
            hint="Name an event type, as in FROM order.placed.",
        )


def split_clauses(tree: exp.Select, span: Span) -> Clauses:
    """The clauses' texts, checked against the tree that sqlglot sees."""
    select = span.find(TokenType.SELECT)
    origin = span.find_clause(TokenType.FROM)
    where = span.find(TokenType.WHERE)
    group = span.find(TokenType.GROUP_BY)
    agrees = (
        select == 0
        and origin is not None
        and (where is None) == (tree.args.get("where") is None)
        and (group is None) == (tree.args.get("group") is None)
        and (where is None or where > origin)
        and (group is None or group > (where or origin))
    )
    if not agrees or origin is None:
        raise ViewDefinitionError(
            "The SELECT's clauses could not be told apart.",
            hint="Write SELECT ... FROM ... WHERE ... GROUP BY ..., and quote names that are "
            "keywords.",
        )
    start = 1
    if span.tokens[1].token_type == TokenType.ALL:
        start = 2
    return Clauses(
        items=span.cut(start, origin),
        origin=span.cut(origin + 1, where or group),
        condition=None if where is None else span.cut(where + 1, group),
        groups=None if group is None else span.cut(group + 1),
    )


def split_items(tree: exp.Select, clauses: Clauses) -> list[Item]:
    """The select list's items."""
    spans = clauses.items.split(TokenType.COMMA)
    if len(spans) != len(tree.expressions) or not all(len(span) for span in spans):
        raise ViewDefinitionError(
            "The select list has an empty item or one that isn't understood.",
            hint="Look for a comma too many.",
        )
    return [_item(node, span) for node, span in zip(tree.expressions, spans, strict=True)]


def _item(node: exp.Expr, span: Span) -> Item:
    if node.is_star and not isinstance(node, exp.Count):
        raise ViewDefinitionError(
            "A star stands for columns that may change with the event's type.",
            hint="Name the columns.",
        )
    if not isinstance(node, exp.Alias):
        return Item(span=span, name=None)
    alias = node.args["alias"]
    name = alias.name if alias.quoted else alias.name.lower()
    has_as = len(span) > 2 and span.tokens[-2].token_type == TokenType.ALIAS
    return Item(span=span.cut(0, -2 if has_as else -1), name=name)
