"""Small SQL expressions that mean the same in Python and in Postgres.

One tree, read by sqlglot, is compiled to a Python function and to SQL. Only what both compute alike is
taken: integers, decimals, floats, text and booleans; no division of decimals, no upper or lower case
beyond ASCII, text compared by code points. Anything else is refused when the class is defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from operator import add, eq, ge, gt, le, lt, mul, ne, sub
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from headwater.errors import EventDefinitionError

Values = Mapping[str, Any]
_EXACT = Context(prec=2000)

SQL_TYPES: dict[type, str] = {
    str: "text", int: "bigint", float: "double precision", Decimal: "numeric", bool: "boolean",
}  # fmt: skip
_NUMBERS = (int, Decimal, float)


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression: its type, its SQL, and its value for the fields' values. None is SQL's NULL."""

    type: type
    sql: str
    value: Callable[[Values], Any]


def compiled(text: str, fields: Mapping[str, tuple[type, str]]) -> Compiled:
    """An expression over typed fields, each with its SQL. Raises EventDefinitionError."""
    try:
        tree = sqlglot.parse_one(text, dialect="postgres")
    except SqlglotError as error:
        raise _refused(text, "it cannot be understood") from error
    return _Compiler(text, fields).compile(tree)


def _refused(text: str, why: str) -> EventDefinitionError:
    return EventDefinitionError(
        f"The expression {text!r} cannot be computed alike in Python and in Postgres: {why}.",
        hint="Use fields, literals, + - * ||, comparisons, AND, OR, NOT, CASE, coalesce, nullif, round, abs, "
        "length, trim, replace, upper, lower; or a Python function, which confines the type to folds.",
    )


_ARITHMETIC: dict[type[exp.Expr], tuple[str, Callable[[Any, Any], Any]]] = {
    exp.Add: ("+", add),
    exp.Sub: ("-", sub),
    exp.Mul: ("*", mul),
}
_COMPARISONS: dict[type[exp.Expr], tuple[str, Callable[[Any, Any], Any]]] = {
    exp.EQ: ("=", eq),
    exp.NEQ: ("<>", ne),
    exp.LT: ("<", lt),
    exp.LTE: ("<=", le),
    exp.GT: (">", gt),
    exp.GTE: (">=", ge),
}
_FLIPPED = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
)


def _upper(text: str) -> str:
    return "".join(c.translate(_FLIPPED) if "a" <= c <= "z" else c for c in text)


def _lower(text: str) -> str:
    return "".join(c.translate(_FLIPPED) if "A" <= c <= "Z" else c for c in text)


_TEXT: dict[type[exp.Expr], tuple[str, Callable[[str], Any], type]] = {
    exp.Upper: ('upper({} COLLATE "C")', _upper, str),
    exp.Lower: ('lower({} COLLATE "C")', _lower, str),
    exp.Length: ("length({})::bigint", len, int),
}  # fmt: skip


class _Compiler:
    """Compiles one tree, from the leaves up."""

    def __init__(self, text: str, fields: Mapping[str, tuple[type, str]]) -> None:
        self._text = text
        self._fields = fields

    def compile(self, node: exp.Expr) -> Compiled:
        match node:
            case exp.Paren():
                return self.compile(node.this)
            case exp.Column():
                return self._field(node)
            case exp.Literal() | exp.Boolean() | exp.Null():
                return self._literal(node)
            case exp.Neg():
                operand = self._number(node.this)
                return Compiled(operand.type, f"(- {operand.sql})", _strict(lambda a: -a, operand))
            case exp.And() | exp.Or() | exp.Not():
                return self._logic(node)
            case exp.Is():
                return self._is_null(node)
            case exp.Case():
                return self._case(node)
            case exp.Coalesce():
                return self._coalesce([node.this, *node.expressions])
            case exp.Nullif():
                left, right = self._alike([node.this, node.expression])
                return Compiled(
                    left.type,
                    f"nullif({_bare(left)}, {_bare(right)})",
                    lambda v: None if left.value(v) == right.value(v) else left.value(v),
                )
        return self._operation(node)

    def _operation(self, node: exp.Expr) -> Compiled:
        kind = type(node)
        if kind in _ARITHMETIC:
            sign, operate = _ARITHMETIC[kind]
            left, right = self._alike([node.this, node.expression], _NUMBERS)
            if left.type is Decimal:
                operate = {add: _EXACT.add, sub: _EXACT.subtract, mul: _EXACT.multiply}[operate]
            return Compiled(
                left.type, f"({left.sql} {sign} {right.sql})", _strict(operate, left, right)
            )
        if kind in _COMPARISONS:
            sign, operate = _COMPARISONS[kind]
            left, right = self._alike([node.this, node.expression])
            return Compiled(
                bool, f"({_bare(left)} {sign} {_bare(right)})", _strict(operate, left, right)
            )
        if kind in _TEXT:
            pattern, function, result = _TEXT[kind]
            operand = self._of(node.this, str)
            return Compiled(result, pattern.format(operand.sql), _strict(function, operand))
        match node:
            case exp.DPipe():
                left, right = self._of(node.this, str), self._of(node.expression, str)
                return Compiled(str, f"({left.sql} || {right.sql})", _strict(add, left, right))
            case exp.Trim() if node.args.get("expression") is None and not node.args.get(
                "position"
            ):
                operand = self._of(node.this, str)
                return Compiled(
                    str, f"btrim({operand.sql})", _strict(lambda t: t.strip(" "), operand)
                )
            case exp.Abs():
                operand = self._number(node.this)
                return Compiled(operand.type, f"abs({operand.sql})", _strict(abs, operand))
            case exp.Replace():
                parts = [self._of(n, str) for n in (node.this, node.expression, node.args["replacement"])]  # fmt: skip
                return Compiled(
                    str,
                    f"replace({', '.join(p.sql for p in parts)})",
                    _strict(lambda t, a, b: t.replace(a, b) if a else t, *parts),
                )
            case exp.Round():
                return self._round(node)
        raise _refused(self._text, f"{node.sql('postgres')!r} is not among what both know")

    def _field(self, node: exp.Column) -> Compiled:
        name = node.name
        if node.table or name not in self._fields:
            raise _refused(self._text, f"the type of {node.sql('postgres')!r} is not given")
        kind, sql = self._fields[name]
        return Compiled(kind, sql, lambda values: values[name])

    def _literal(self, node: exp.Expr) -> Compiled:
        if isinstance(node, exp.Null):
            return Compiled(type(None), "NULL", lambda _: None)
        if isinstance(node, exp.Boolean):
            truth = bool(node.this)
            return Compiled(bool, str(truth).lower(), lambda _: truth)
        text: str = node.this
        if node.is_string:
            return Compiled(str, "'" + text.replace("'", "''") + "'::text", lambda _: text)
        number = int(text) if text.isdigit() else Decimal(text)
        if isinstance(number, int) and number >= 2**63:
            raise _refused(self._text, f"{text} does not fit 64 bits")
        sql = f"{text}::{SQL_TYPES[type(number)]}"
        return Compiled(type(number), sql, lambda _: number)

    def _logic(self, node: exp.Expr) -> Compiled:
        if isinstance(node, exp.Not):
            operand = self._of(node.this, bool)
            return Compiled(bool, f"(NOT {operand.sql})", _strict(lambda a: not a, operand))
        left, right = self._of(node.this, bool), self._of(node.expression, bool)
        decides = isinstance(node, exp.Or)  # the value that decides whatever the other is
        word = "OR" if decides else "AND"

        def value(values: Values) -> bool | None:
            found = (left.value(values), right.value(values))
            if decides in found:
                return decides
            return None if None in found else not decides

        return Compiled(bool, f"({left.sql} {word} {right.sql})", value)

    def _is_null(self, node: exp.Is) -> Compiled:
        operand = self.compile(node.this)
        if not isinstance(node.expression, exp.Null):
            raise _refused(self._text, "IS compares with NULL only")
        return Compiled(bool, f"({operand.sql} IS NULL)", lambda v: operand.value(v) is None)

    def _case(self, node: exp.Case) -> Compiled:
        if node.this is not None:
            raise _refused(self._text, "CASE is followed by WHEN and a condition")
        conditions = [self._of(branch.this, bool) for branch in node.args["ifs"]]
        results = [branch.args["true"] for branch in node.args["ifs"]]
        results.append(node.args.get("default") or exp.Null())
        *branches, default = self._alike(results)

        def value(values: Values) -> Any:
            for condition, branch in zip(conditions, branches, strict=True):
                if condition.value(values):
                    return branch.value(values)
            return default.value(values)

        arms = " ".join(
            f"WHEN {c.sql} THEN {b.sql}" for c, b in zip(conditions, branches, strict=True)
        )
        return Compiled(default.type, f"(CASE {arms} ELSE {default.sql} END)", value)

    def _coalesce(self, nodes: list[exp.Expr]) -> Compiled:
        parts = self._alike(nodes)

        def value(values: Values) -> Any:
            return next((v for part in parts if (v := part.value(values)) is not None), None)

        return Compiled(parts[0].type, f"coalesce({', '.join(p.sql for p in parts)})", value)

    def _round(self, node: exp.Round) -> Compiled:
        operand = self._of(node.this, Decimal)
        given = node.args.get("decimals")
        digits = int(given.this) if isinstance(given, exp.Literal) and given.is_int else 0
        if given is not None and not (isinstance(given, exp.Literal) and given.is_int):
            raise _refused(self._text, "round takes a decimal and a number of digits")
        unit = Decimal(1).scaleb(-digits)

        def rounded(value: Decimal) -> Decimal:
            return value.quantize(unit, rounding=ROUND_HALF_UP, context=_EXACT)

        return Compiled(Decimal, f"round({operand.sql}, {digits})", _strict(rounded, operand))

    def _of(self, node: exp.Expr, kind: type) -> Compiled:
        (operand,) = self._alike([node], (kind,))
        return operand

    def _number(self, node: exp.Expr) -> Compiled:
        (operand,) = self._alike([node], _NUMBERS)
        return operand

    def _alike(self, nodes: list[exp.Expr], kinds: tuple[type, ...] = ()) -> list[Compiled]:
        """Operands brought to one type: an integer beside a decimal is one, both beside a float are."""
        parts = [self.compile(node) for node in nodes]
        found = {part.type for part in parts} - {type(None)}
        if len(found) > 1 and found <= set(_NUMBERS):
            widest = max(found, key=_NUMBERS.index)
            parts = [_widened(part, widest) for part in parts]
            found = {widest}
        kind = found.pop() if len(found) == 1 else (kinds[0] if kinds else str)
        if found or (kinds and kind not in kinds):
            told = " or ".join(SQL_TYPES[k] for k in kinds) or "one type"
            raise _refused(self._text, f"{nodes[0].sql('postgres')!r} and what is beside it are not {told}")  # fmt: skip
        return [
            Compiled(kind, f"NULL::{SQL_TYPES[kind]}", p.value) if p.type is type(None) else p
            for p in parts
        ]


def _widened(part: Compiled, kind: type) -> Compiled:
    if part.type in {kind, type(None)}:
        return part
    return Compiled(kind, f"{part.sql}::{SQL_TYPES[kind]}", _strict(kind, part))


def _bare(part: Compiled) -> str:
    """The SQL of an operand of a comparison: text by code points, whatever the database's collation."""
    return f'{part.sql} COLLATE "C"' if part.type is str else part.sql


def _strict(function: Callable[..., Any], *parts: Compiled) -> Callable[[Values], Any]:
    """NULL where an operand is. Floats stay finite, as they do in Postgres."""

    def value(values: Values) -> Any:
        operands = [part.value(values) for part in parts]
        if None in operands:
            return None
        result = function(*operands)
        if isinstance(result, float) and not math.isfinite(result):
            raise OverflowError("a float became infinite")
        return result

    return value
