"""What is common to the translation of all expressions: an engine's words, literals, and values brought to one kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlglot import exp

from headwater.errors import QueryRefused
from headwater.views.sql.dialect import NUMBERS, Dialect, Kind, Value
from headwater.views.sql.literals import Number, date, moment, signed_number, uuid

_HELD_BY: frozenset[tuple[Kind, Kind]] = frozenset({("integer", "decimal"), ("integer", "float"), ("decimal", "float"), ("date", "time")})  # fmt: skip


class Conversions:
    """Converts values in one engine's SQL, where that loses nothing. ``of`` is what an error names."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.text = ""
        """The whole expression that is being translated, as it was written."""
        self.root: exp.Expr | None = None

    def words(self, operation: str, of: exp.Expr | str) -> str:
        """How the engine writes an operation. Raises QueryRefused where it has no words."""
        why = self.dialect.refused.get(operation)
        words = self.dialect.words(operation)
        if words is None or why is not None:
            raise self.refused(of, why or "there is no exact counterpart")
        return words

    def refused(self, of: exp.Expr | str, why: str) -> QueryRefused:
        """The error for an expression."""
        shown = self.text if of is self.root else self.shown(of)
        within = "" if shown in self.text or not self.text else f" in {self.text!r}"
        name = f" ({type(of).__name__})" if isinstance(of, exp.Expr) else ""
        return QueryRefused(f"{shown!r}{name}{within} is not computed alike: {why}.")

    def shown(self, of: exp.Expr | str) -> str:
        """An expression as an error names it."""
        return of if isinstance(of, str) else of.sql(dialect="postgres")

    def brought(self, value: Value, kind: Kind, of: str) -> Value:
        """A value as one of a kind that holds it, as Postgres brings operands together."""
        if value.kind in {kind, "null"}:
            return value
        if value.kind == "unknown":
            return self._read(value, kind, of)
        if kind == "float" and value.literal is not None and value.kind in NUMBERS:
            return Value(self.words("float_literal", of).format(value.literal), "float")
        if (value.kind, kind) not in _HELD_BY:
            raise self.refused(of, f"a {value.kind} value stands where a {kind} value is needed")
        sql = self.words(f"{value.kind}_to_{kind}", of).format(value.sql)
        digits = min(len(value.literal), 19) if value.literal else 19
        return self.held(Value(sql, kind, digits if kind == "decimal" else 0), of)

    def _read(self, value: Value, kind: Kind, of: str) -> Value:
        """A text of no type yet, as Postgres reads it for its neighbour."""
        text = value.literal or ""
        if kind in {"text", "unknown"}:
            return Value(value.sql, "text", literal=text)
        if kind in NUMBERS and (number := signed_number(text)) is not None:
            read = self.number(number, text.strip(), of)
            return read if read.kind == kind else self.brought(read, kind, of)
        if kind == "uuid" and (own := uuid(text)) is not None:
            return Value(self.quoted(own), "uuid")
        if kind == "date" and (day := date(text)) is not None:
            return self._dated(self.words("date_literal", of).format(day), "date", day, of)
        if kind == "time" and (at := moment(text)) is not None:
            return self._dated(self.words("time_literal", of).format(at), "time", at, of)
        raise self.refused(of, f"{text!r} is not read as {kind}: write a plain literal")

    def number(self, number: Number, text: str, of: exp.Expr | str) -> Value:
        """A number that is written out."""
        words = self.words("decimal_literal" if number.kind == "decimal" else "integer", of)
        sql = words.format(text, scale=number.scale)
        return self.held(Value(sql, number.kind, number.digits, number.scale, text), of)

    def _dated(self, sql: str, kind: Kind, text: str, of: str) -> Value:
        if not self.dialect.first_date <= text[:10] <= self.dialect.last_date:
            raise self.refused(of, f"the engine has no dates before {self.dialect.first_date} or after {self.dialect.last_date}")  # fmt: skip
        return Value(sql, kind)

    # What values have in common ------------------------------------------------------------------

    def common(self, kinds: Iterable[Kind], of: str) -> Kind:
        found = {kind for kind in kinds if kind not in {"null", "unknown"}}
        if not found:
            return "text"
        if len(found) == 1:
            return found.pop()
        if found <= set(NUMBERS):
            return max(found, key=NUMBERS.index)
        if found == {"date", "time"}:
            return "time"
        raise self.refused(of, f"it brings {' and '.join(sorted(found))} values together")

    def _scaled(self, value: Value, scale: int, of: str) -> Value:
        if value.kind != "decimal" or value.scale == scale:
            return value
        sql = self.words("decimal", of).format(value.sql, scale=scale)
        return self.held(Value(sql, "decimal", value.digits, scale), of)

    def one_of(self, sql: str, values: Sequence[Value]) -> Value:
        """An expression that is one of several values of one kind."""
        kind: Kind = next((v.kind for v in values if v.kind != "null"), "null")
        if kind != "decimal":
            return Value(sql, kind)
        return Value(sql, kind, max(v.digits for v in values), max(v.scale for v in values))

    def held(self, value: Value, of: exp.Expr | str) -> Value:
        """A value that the engine holds exactly. Raises QueryRefused."""
        if value.kind != "decimal":
            return value
        size = value.scale if self.dialect.is_noticed else value.digits + value.scale
        if size > self.dialect.capacity:
            raise self.refused(of, f"it may have {value.digits} digits before the point and {value.scale} after it, and the engine holds {self.dialect.capacity}")  # fmt: skip
        return value

    def quoted(self, text: str) -> str:
        return exp.Literal.string(text).sql(dialect=self.dialect.sqlglot)

    def alike(self, values: Sequence[Value], of: str) -> list[Value]:
        """Values brought to one kind, decimals to one scale."""
        kind = self.common([value.kind for value in values], of)
        brought = [self.brought(value, kind, of) for value in values]
        if kind == "decimal":
            scale = max(value.scale for value in brought)
            brought = [self._scaled(value, scale, of) for value in brought]
        return brought
