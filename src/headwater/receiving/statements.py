"""The statements of this room."""

from __future__ import annotations

from headwater.log.statements import Statements

SQL = Statements("headwater.receiving")
