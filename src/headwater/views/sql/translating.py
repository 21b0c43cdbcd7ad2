"""From an expression of Postgres's SQL to the same in an engine's, or to the reason why there is none.

sqlglot reads the expression; each kind of node that is known here has a rule for its types, and the engine's
``Dialect`` has the words. What has no rule is refused. sqlglot's own writing is used for names and texts
only: it keeps the words and not the meaning (see the decision record).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from headwater.errors import ViewDefinitionError
from headwater.views.sql.conversions import Conversions
from headwater.views.sql.dialect import NUMBERS, Dialect, Kind, Value
from headwater.views.sql.literals import number
from headwater.views.sql.precedence import misread
from headwater.views.sql.scalars import folded
from headwater.views.sql.tokens import parse_expression, tokenize

_ARITHMETIC: Mapping[type[exp.Expr], str] = {
    exp.Add: "add", exp.Sub: "subtract", exp.Mul: "multiply",
}  # fmt: skip
_COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
    exp.NullSafeNEQ: "distinct", exp.NullSafeEQ: "same",
}  # fmt: skip
_ORDERED: tuple[Kind, ...] = (*NUMBERS, "date", "time")
_UNITS = frozenset({"second", "minute", "hour", "day", "week", "month", "quarter", "year"})
_FIELDS = frozenset({
    "minute", "hour", "day", "dow", "isodow", "doy", "week", "month", "quarter", "year",
})  # fmt: skip
_CASTS: Mapping[str, Kind] = {
    "SMALLINT": "integer", "INT": "integer", "BIGINT": "integer", "DECIMAL": "decimal",
    "DOUBLE": "float", "BOOLEAN": "boolean", "TEXT": "text", "VARCHAR": "text", "UUID": "uuid",
    "DATE": "date", "TIMESTAMP": "time", "TIMESTAMPTZ": "time",
}  # fmt: skip
_OPERANDS = frozenset({"this", "expression", "expressions"})
_UNDERSTOOD: Mapping[type[exp.Expr], frozenset[str]] = {
    exp.Column: frozenset({"table"}), exp.Literal: frozenset({"is_string"}),
    exp.Is: frozenset({"negate"}), exp.Like: frozenset({"negate"}),
    exp.Between: frozenset({"low", "high"}), exp.Case: frozenset({"ifs", "default"}),
    exp.DPipe: frozenset({"safe"}), exp.Cast: frozenset({"to"}), exp.Round: frozenset({"decimals"}),
    exp.Substring: frozenset({"start", "length"}), exp.Replace: frozenset({"replacement"}),
    exp.TimestampTrunc: frozenset({"unit"}), exp.AtTimeZone: frozenset({"zone"}),
    exp.Div: frozenset({"typed"}), exp.Greatest: frozenset({"ignore_nulls"}), exp.Least: frozenset({"ignore_nulls"}),
}  # fmt: skip
"""What else than operands a rule looks at. A node that says more, as a negation may, is refused."""
_REASONS: Mapping[str, str] = {
    "Upper": "what is upper case follows the database's locale",
    "Lower": "what is lower case follows the database's locale",
    "ILike": "what is upper and lower case follows the database's locale",
    "Interval": "months and days have no fixed length",
    "JSONExtract": "texts of JSON are written otherwise there",
    "JSONExtractScalar": "texts of JSON are written otherwise there",
    "Pow": "it is not exact",
}


class Translator(Conversions):
    """Translates expressions over columns whose values in the engine are known."""

    def __init__(
        self, dialect: Dialect, columns: Mapping[str, Value], *, orders_by_bytes: bool
    ) -> None:
        super().__init__(dialect)
        self._columns = columns
        self._orders_by_bytes = orders_by_bytes

    def value(self, text: str) -> Value:
        """The value of an expression as the user wrote it. Raises QueryRefused."""
        self.text, self.root = text, None
        try:
            self.root = tree = parse_expression(tokenize(text))
        except ViewDefinitionError as error:
            raise self.refused(text, "it could not be understood") from error
        if (node := misread(tree)) is not None:
            raise self.refused(
                node, "what belongs to what could be read in two ways: write parentheses"
            )
        return self._value(tree)

    def typed(self, text: str) -> Value:
        """The value of an expression that stands alone: what has no type yet is a text."""
        value = self.value(text)
        return self.brought(value, "text", text) if value.kind == "unknown" else value

    def condition(self, text: str) -> str:
        """The SQL of a condition. Raises QueryRefused."""
        return self._boolean(self.value(text), text).sql

    # Nodes ---------------------------------------------------------------------------------------

    def _value(self, node: exp.Expr) -> Value:
        rules: Mapping[type[exp.Expr], Callable[[exp.Expr], Value]] = {
            exp.Paren: lambda n: self._value(n.this),
            exp.Column: self._column, exp.Literal: self._literal, exp.Boolean: self._truth,
            exp.Null: lambda _: Value("NULL", "null"),
            exp.Neg: self._negative, exp.Div: self._division, exp.Mod: self._modulo,
            exp.And: self._junction, exp.Or: self._junction, exp.Not: self._not, exp.Is: self._is,
            exp.Between: self._between, exp.In: self._in, exp.Case: self._case,
            exp.Coalesce: self._coalesce, exp.Nullif: self._nullif,
            exp.Greatest: self._extreme, exp.Least: self._extreme,
            exp.DPipe: self._concat, exp.Like: self._like, exp.Length: self._length,
            exp.Substring: self._substring, exp.Left: self._left, exp.Replace: self._replace,
            exp.Trim: self._trim, exp.Cast: self._cast, exp.Round: self._round, exp.Abs: self._abs,
            exp.Ceil: self._whole, exp.Floor: self._whole, exp.Trunc: self._whole,
            exp.TimestampTrunc: self._truncated, exp.Extract: self._extract, exp.AtTimeZone: self._zone,
        }  # fmt: skip
        kind = type(node)
        understood = _OPERANDS | _UNDERSTOOD.get(kind, frozenset())
        if beyond := [name for name, said in node.args.items() if said and name not in understood]:
            raise self.refused(node, _REASONS.get(kind.__name__, f"its {beyond[0]} is not read"))
        if kind in _ARITHMETIC:
            return self._arithmetic(_ARITHMETIC[kind], node)
        if kind in _COMPARISONS:
            left, right = self._value(node.this), self._value(node.expression)
            return self._compared(_COMPARISONS[kind], left, right, node)
        if (rule := rules.get(kind)) is None:
            raise self.refused(node, _REASONS.get(kind.__name__, "there is no exact counterpart"))
        return rule(node)

    def _column(self, node: exp.Expr) -> Value:
        name = folded(node.this)
        if (found := self._columns.get(name)) is None:
            raise self.refused(node, "its type has no exact counterpart")
        return found

    def _literal(self, node: exp.Expr) -> Value:
        text: str = node.this
        if node.is_string:
            return Value(self.quoted(text), "unknown", literal=text)
        if (written := number(text)) is None:
            raise self.refused(node, "numbers are read without an exponent")
        return self.number(written, text, node)

    def _truth(self, node: exp.Expr) -> Value:
        return Value("(1 = 1)" if node.this else "(1 = 0)", "boolean")

    def _negative(self, node: exp.Expr) -> Value:
        value = self._numeric(self._value(node.this), node)
        sql = self.words("negate", node).format(value.sql)
        literal = value.literal
        if literal is not None:
            literal = literal.removeprefix("-") if literal.startswith("-") else f"-{literal}"
        return Value(sql, value.kind, value.digits, value.scale, literal)

    def _arithmetic(self, operation: str, node: exp.Expr) -> Value:
        left, right = self._numbers(node)
        sql = self.words(operation, node).format(left.sql, right.sql)
        if left.kind != "decimal":
            return Value(sql, left.kind)
        if operation == "multiply":
            digits, scale = left.digits + right.digits, left.scale + right.scale
        else:
            digits, scale = max(left.digits, right.digits) + 1, max(left.scale, right.scale)
        return self.held(Value(sql, "decimal", digits, scale), node)

    def _division(self, node: exp.Expr) -> Value:
        left, right = self._numbers(node)
        if left.kind == "decimal":
            raise self.refused(
                node, "the quotient of decimals has as many digits as Postgres chooses"
            )
        operation = "divide_integers" if left.kind == "integer" else "divide_floats"
        return Value(self.words(operation, node).format(left.sql, right.sql), left.kind)

    def _modulo(self, node: exp.Expr) -> Value:
        left, right = self._numbers(node)
        if left.kind != "integer":
            raise self.refused(node, "the remainder is exact for integers only")
        return Value(self.words("modulo", node).format(left.sql, right.sql), "integer")

    def _compared(self, operation: str, left: Value, right: Value, of: exp.Expr | str) -> Value:
        left, right = self.alike([left, right], self.shown(of))
        if left.kind in {"text", "uuid", "boolean", "null"} and operation in {"<", "<=", ">", ">="}:
            self._require_order(left.kind, of)
        if operation == "same":
            distinct = self.words("distinct", of).format(left.sql, right.sql)
            return Value(self.words("not", of).format(distinct), "boolean")
        return Value(self.words(operation, of).format(left.sql, right.sql), "boolean")

    def _require_order(self, kind: Kind, of: exp.Expr | str) -> None:
        if kind != "text":
            raise self.refused(of, f"{kind} values are not put in order")
        self.require_bytes(of)

    def require_bytes(self, of: exp.Expr | str) -> None:
        """Raises QueryRefused where the database orders texts otherwise than by their bytes."""
        if not self._orders_by_bytes:
            raise self.refused(of, "the database orders texts by a locale, the engine by bytes")

    def _junction(self, node: exp.Expr) -> Value:
        left, right = (self._boolean(self._value(n), n) for n in (node.this, node.expression))
        words = self.words("and" if isinstance(node, exp.And) else "or", node)
        return Value(words.format(left.sql, right.sql), "boolean")

    def _not(self, node: exp.Expr) -> Value:
        operand = self._boolean(self._value(node.this), node)
        return Value(self.words("not", node).format(operand.sql), "boolean")

    def _is(self, node: exp.Expr) -> Value:
        operand, asked = self._value(node.this), node.expression
        negated = bool(node.args.get("negate"))
        if isinstance(asked, exp.Null):
            words = self.words("is_not_null" if negated else "is_null", node)
            return Value(words.format(operand.sql), "boolean")
        if not isinstance(asked, exp.Boolean):
            raise self.refused(node, "there is no exact counterpart")
        operand = self._boolean(operand, node)
        sql = self.words("is_true" if asked.this else "is_false", node).format(operand.sql)
        return Value(self.words("not", node).format(sql) if negated else sql, "boolean")

    def _between(self, node: exp.Expr) -> Value:
        if node.args.get("symmetric"):
            raise self.refused(node, "write it as comparisons")
        value = self._value(node.this)
        low = self._compared(">=", value, self._value(node.args["low"]), node)
        high = self._compared("<=", value, self._value(node.args["high"]), node)
        return Value(self.words("and", node).format(low.sql, high.sql), "boolean")

    def _in(self, node: exp.Expr) -> Value:
        if not node.expressions:
            raise self.refused(node, "only a list of values is read")
        value = self._value(node.this)
        found = [self._compared("=", value, self._value(one), node).sql for one in node.expressions]
        joined = found[0]
        for one in found[1:]:
            joined = self.words("or", node).format(joined, one)
        return Value(joined, "boolean")

    def _case(self, node: exp.Expr) -> Value:
        branches = node.args["ifs"]
        conditions = [self._value(branch.this) for branch in branches]
        if node.this is not None:
            subject = self._value(node.this)
            conditions = [self._compared("=", subject, one, node) for one in conditions]
        results = [self._value(branch.args["true"]) for branch in branches]
        default = node.args.get("default")
        results.append(Value("NULL", "null") if default is None else self._value(default))
        *values, otherwise = self.alike(results, self.shown(node))
        arms = " ".join(
            f"WHEN {self._boolean(condition, node).sql} THEN {value.sql}"
            for condition, value in zip(conditions, values, strict=True)
        )
        sql = f"(CASE {arms} ELSE {otherwise.sql} END)"
        return self.one_of(sql, [*values, otherwise])

    def _coalesce(self, node: exp.Expr) -> Value:
        values = self.alike([self._value(n) for n in (node.this, *node.expressions)], self.shown(node))  # fmt: skip
        return self.one_of(f"coalesce({', '.join(v.sql for v in values)})", values)

    def _nullif(self, node: exp.Expr) -> Value:
        left, right = self._value(node.this), self._value(node.expression)
        if left.kind == "unknown":
            left = self.brought(left, "text", self.shown(node))
        equal = self._compared("=", left, right, node)
        sql = f"(CASE WHEN {equal.sql} THEN NULL ELSE {left.sql} END)"
        return Value(sql, left.kind, left.digits, left.scale)

    def _extreme(self, node: exp.Expr) -> Value:
        values = self.alike([self._value(n) for n in (node.this, *node.expressions)], self.shown(node))  # fmt: skip
        if values[0].kind not in _ORDERED:
            raise self.refused(node, "only numbers and times are put in order")
        name = "greatest" if isinstance(node, exp.Greatest) else "least"
        return self.one_of(f"{name}({', '.join(v.sql for v in values)})", values)

    # Texts ---------------------------------------------------------------------------------------

    def _concat(self, node: exp.Expr) -> Value:
        left, right = (self._textual(n, node) for n in (node.this, node.expression))
        return Value(self.words("concat", node).format(left.sql, right.sql), "text")

    def _like(self, node: exp.Expr) -> Value:
        value, pattern = self._textual(node.this, node), self._value(node.expression)
        if pattern.literal is None or "\\" in pattern.literal:
            raise self.refused(node, "a pattern is a text without a backslash")
        sql = self.words("like", node).format(value.sql, pattern.sql)
        return Value(
            self.words("not", node).format(sql) if node.args.get("negate") else sql, "boolean"
        )

    def _length(self, node: exp.Expr) -> Value:
        value = self._textual(node.this, node)
        return Value(self.words("length", node).format(value.sql), "integer")

    def _substring(self, node: exp.Expr) -> Value:
        value = self._textual(node.this, node)
        start = self._count(node.args.get("start"), node, least=1)
        length = node.args.get("length")
        if length is None:
            return Value(self.words("substring_from", node).format(value.sql, start), "text")
        count = self._count(length, node)
        return Value(self.words("substring", node).format(value.sql, start, count), "text")

    def _left(self, node: exp.Expr) -> Value:
        value, count = self._textual(node.this, node), self._count(node.expression, node)
        return Value(self.words("substring", node).format(value.sql, 1, count), "text")

    def _replace(self, node: exp.Expr) -> Value:
        texts = [self._textual(n, node) for n in (node.this, node.expression, node.args["replacement"])]  # fmt: skip
        return Value(self.words("replace", node).format(*(t.sql for t in texts)), "text")

    def _trim(self, node: exp.Expr) -> Value:
        if node.args.get("expression") is not None or node.args.get("position"):
            raise self.refused(node, "only blanks are taken away, at both ends")
        value = self._textual(node.this, node)
        return Value(self.words("trim", node).format(value.sql), "text")

    # Numbers -------------------------------------------------------------------------------------

    def _round(self, node: exp.Expr) -> Value:
        value = self._value(node.this)
        given = node.args.get("decimals")
        digits = 0 if given is None else self._count(given, node)
        if value.kind not in {"decimal", "integer"}:
            raise self.refused(node, "only decimals are rounded alike")
        return self._rounded(self.brought(value, "decimal", self.shown(node)), digits, node)

    def _rounded(self, value: Value, digits: int, of: exp.Expr | str) -> Value:
        if value.scale <= digits:
            return value
        sql = self.words("round", of).format(value.sql, scale=digits)
        return self.held(Value(sql, "decimal", value.digits + 1, digits), of)

    def _abs(self, node: exp.Expr) -> Value:
        value = self._numeric(self._value(node.this), node)
        return Value(self.words("abs", node).format(value.sql), value.kind, value.digits, value.scale)  # fmt: skip

    def _whole(self, node: exp.Expr) -> Value:
        value = self._value(node.this)
        if value.kind != "decimal" or node.args.get("decimals") is not None:
            raise self.refused(node, "only decimals are rounded alike, to whole numbers")
        name = {exp.Ceil: "ceil", exp.Floor: "floor", exp.Trunc: "trunc"}[type(node)]  # type: ignore[index]
        sql = self.words(name, node).format(value.sql)
        return self.held(Value(sql, "decimal", value.digits + 1, 0), node)

    def _numeric(self, value: Value, of: exp.Expr) -> Value:
        if value.kind not in NUMBERS:
            raise self.refused(of, f"it calculates with a {value.kind} value")
        return value

    def _numbers(self, node: exp.Expr) -> tuple[Value, Value]:
        """Both operands, brought to one kind; decimals keep their scales."""
        operands = [self._value(n) for n in (node.this, node.expression)]
        kind = self.common([o.kind for o in operands], self.shown(node))
        if kind not in NUMBERS:
            raise self.refused(node, f"it calculates with {kind} values")
        left, right = (self.brought(o, kind, self.shown(node)) for o in operands)
        return left, right

    # Times ---------------------------------------------------------------------------------------

    def _truncated(self, node: exp.Expr) -> Value:
        unit, value = node.args["unit"].name.lower(), self._time(node.this, node)
        if unit not in _UNITS or node.args.get("zone") is not None:
            raise self.refused(
                node, f"of units there are {', '.join(sorted(_UNITS))}, without a zone"
            )
        operation = f"truncate_{unit}" if self.dialect.words(f"truncate_{unit}") else "truncate"
        return Value(self.words(operation, node).format(value.sql, unit=unit), "time")

    def _extract(self, node: exp.Expr) -> Value:
        unit, value = node.this.name.lower(), self._time(node.expression, node)
        if unit not in _FIELDS or "date_part" in self.text.lower():
            raise self.refused(
                node, f"of fields there are {', '.join(sorted(_FIELDS))}, by extract()"
            )
        operation = f"extract_{unit}" if self.dialect.words(f"extract_{unit}") else "extract"
        whole = self.words(operation, node).format(value.sql, unit=unit)
        return self.brought(Value(self.words("to_integer", node).format(whole), "integer"), "decimal", self.shown(node))  # fmt: skip

    def _zone(self, node: exp.Expr) -> Value:
        zone = node.args["zone"]
        if not (isinstance(zone, exp.Literal) and zone.this.upper() == "UTC"):
            raise self.refused(node, "the engine has a table of time zones of its own; UTC is one everywhere")  # fmt: skip
        return self._time(node.this, node)

    def _time(self, node: exp.Expr, of: exp.Expr) -> Value:
        return self.brought(self._value(node), "time", self.shown(of))

    # Casts ---------------------------------------------------------------------------------------

    def _cast(self, node: exp.Expr) -> Value:
        target = node.args["to"]
        name = target.this.name if isinstance(target.this, exp.DType) else ""
        kind, limits = _CASTS.get(name), target.expressions
        value = self._value(node.this)
        if kind is None or (limits and kind != "decimal"):
            raise self.refused(node, "there is no exact counterpart of the type")
        if value.kind == kind and not limits:
            return value
        if kind == "text" and value.kind in {"integer", "date", "boolean", "uuid"}:
            return Value(self.words(f"{value.kind}_to_text", node).format(value.sql), "text")
        if kind == "integer" and value.kind == "decimal":
            whole = self._rounded(value, 0, node)
            return Value(self.words("to_integer", node).format(whole.sql), "integer")
        if kind == "date" and value.kind == "time":
            return Value(self.words("time_to_date", node).format(value.sql), "date")
        if kind == "decimal" and value.kind == "float":
            value = self._measured(value, node)
        if kind not in NUMBERS and value.kind in NUMBERS:
            raise self.refused(node, f"a {value.kind} value is not read as {kind}")
        brought = self.brought(value, kind, self.shown(node))
        if limits:
            scale = int(limits[1].this.this) if len(limits) > 1 else 0
            return self._rounded(brought, scale, node)
        return brought

    def _measured(self, value: Value, node: exp.Expr) -> Value:
        """A float column as the decimal of 15 digits that Postgres makes of it."""
        if not (value.digits and isinstance(node.this.unnest(), exp.Column)):
            raise self.refused(
                node, "only a column of floats becomes decimals, whose digits are counted"
            )
        words = self.words("float_to_decimal", node)
        sql = words.format(value.sql, scale=value.scale)
        return self.held(Value(sql, "decimal", value.digits, value.scale), node)

    # What is needed of a value -------------------------------------------------------------------

    def _boolean(self, value: Value, of: exp.Expr | str) -> Value:
        if value.kind == "unknown" or value.kind not in {"boolean", "null"}:
            raise self.refused(of, "it is no condition")
        return value

    def _textual(self, node: exp.Expr, of: exp.Expr) -> Value:
        value = self._value(node)
        if value.kind not in {"text", "unknown", "null"}:
            raise self.refused(of, f"a {value.kind} value stands where a text is needed: cast it")
        return value

    def _count(self, node: exp.Expr | None, of: exp.Expr, *, least: int = 0) -> int:
        if isinstance(node, exp.Literal) and node.is_int and int(node.this) >= least:
            return int(node.this)
        raise self.refused(of, f"it needs a literal of {least} or more")
