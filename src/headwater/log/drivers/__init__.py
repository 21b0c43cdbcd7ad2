"""The drivers that an application may bring; each module is loaded when its package's connection is seen."""

from __future__ import annotations

import re

from headwater.log.driver import Call
from headwater.log.statements import Statements

SQL = Statements("headwater.log.drivers")
_PARAMETER = re.compile(r":(\w+)")


def named(call: Call) -> str:
    """The statement with parameters as :name."""
    return SQL[f"calls.{call.name}"]


def formatted(call: Call) -> str:
    """The statement with parameters as %(name)s."""
    return _PARAMETER.sub(r"%(\1)s", named(call))


def numbered(call: Call) -> tuple[str, list[str | None]]:
    """The statement with parameters as $1, and their values in that order."""
    order: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[1] not in order:
            order.append(found[1])
        return f"${order.index(found[1]) + 1}"

    statement = _PARAMETER.sub(place, named(call))
    return statement, [call.parameters[name] for name in order]
