"""Errors of other drivers, as Headwater's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headwater.log.failures import Complaint


@contextmanager
def heard() -> Iterator[None]:
    """Raises Headwater's refusals in place of a driver's errors; others pass as they are."""
    try:
        yield
    except Exception as error:
        complaint = Complaint.heard(error)
        if complaint is None or (refused := complaint.refusal) is None:
            raise
        raise refused from error
