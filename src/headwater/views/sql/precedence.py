"""Whether sqlglot has read an expression as Postgres does.

Both read operators by their precedence, and not by quite the same one. A tree in which every operand without
parentheses binds tighter than its operator, by Postgres's table, is the only one that Postgres could have read.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

_LEVELS: tuple[tuple[type[exp.Expr], ...], ...] = (
    (exp.Or,),
    (exp.And,),
    (exp.Not,),
    (exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ),
    (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE),
    (exp.Between, exp.In, exp.Like),
    (exp.DPipe,),
    (exp.Add, exp.Sub),
    (exp.Mul, exp.Div, exp.Mod),
    (exp.AtTimeZone,),
    (exp.Neg,),
)
_LEFT = (exp.Or, exp.And, exp.DPipe, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)


def misread(tree: exp.Expr) -> exp.Expr | None:
    """The first operator whose operands need parentheses, or None."""
    for node in tree.walk():
        level = _level(node)
        if level is None:
            continue
        for operand, is_first in _operands(node):
            inner = _level(operand)
            if inner is None or inner > level:
                continue
            if inner == level and is_first and isinstance(node, _LEFT):
                continue
            if isinstance(node, exp.Not) and isinstance(operand, exp.Not):
                continue
            return node
    return None


def _level(node: exp.Expr) -> int | None:
    """The place of an operator; None for what is no operator, whose operands stand apart."""
    return next((place for place, kinds in enumerate(_LEVELS) if type(node) in kinds), None)


def _operands(node: exp.Expr) -> Iterator[tuple[exp.Expr, bool]]:
    first = node.args.get("this")
    if isinstance(first, exp.Expr):
        yield first, True
    others = [node.args.get(name) for name in ("expression", "low", "high", "zone")]
    yield from ((other, False) for other in others if isinstance(other, exp.Expr))
