"""What readers see of a group's states, as ClickHouse's expressions."""

from __future__ import annotations

from headwater.stores.clickhouse.columns import DECIMAL, TIME, base_type
from headwater.stores.clickhouse.text import quoted, statement
from headwater.views.batches import TALLY_GAMMA, TableShape


def output_of(shape: TableShape, name: str, value: str, divisor: str | None) -> str:
    """One output over the merged states of a group."""
    kinds = {state.column.name: state.kind for state in shape.states}
    column = quoted(value)
    shown = column
    match kinds.get(value):
        case "first" | "last":
            shown = _typed(statement("tables.ordered_value", state=column), shape.types[name])
        case "tally":
            shown = statement(
                "tables.quantile",
                state=column,
                level=repr(shape.levels[name]),
                gamma=repr(TALLY_GAMMA),
            )
        case "registers":
            shown = statement("tables.distinct", state=column)
        case _:
            if divisor is not None:
                count = quoted(divisor)
                shown = f"if({count} = 0, NULL, divide({column}, {count}))"
    return f"{shown} AS {quoted(name)}"


def _typed(text: str, sql_type: str) -> str:
    """Text as Postgres writes it, as a value of ClickHouse's type."""
    wanted = base_type(sql_type)
    if wanted == TIME:
        return f"parseDateTime64BestEffortOrNull({text}, 6, 'UTC')"
    if wanted == "Bool":
        return f"{text} = 'true'"
    if wanted == DECIMAL:
        return f"toDecimal256OrNull({text}, 38)"
    return f"CAST({text}, 'Nullable({wanted})')"
