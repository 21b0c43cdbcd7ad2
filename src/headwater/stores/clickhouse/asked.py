"""SQL of the application's own over the views in ClickHouse. Pure: text becomes text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headwater.errors import QueryRefused
from headwater.stores.clickhouse.text import quoted, statement
from headwater.views.sql.relations import quote_relations

_BEGINNING = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(SELECT|WITH)\b(\s+RECURSIVE\b)?", re.DOTALL | re.IGNORECASE)  # fmt: skip


def over(select: str, shown: Mapping[str, str]) -> str:
    """A SELECT in which each name stands for the tenant's rows of what it shows. Raises QueryRefused.

    The names are common table expressions before its own, so they hide what the database calls so.
    """
    found = _BEGINNING.match(select)
    if found is None or found[2]:
        raise QueryRefused("Views in ClickHouse are read by one SELECT.", hint="WITH may begin it.")
    asked = quote_relations(select, shown.keys())
    named = ",\n".join(
        statement("tables.of_tenant", name=quoted(name), shown=where)
        for name, where in shown.items()
    )
    if found[1].upper() == "WITH":
        return f"WITH {named},\n{asked[found.end(1) :]}"
    return f"WITH {named}\n{asked}"
