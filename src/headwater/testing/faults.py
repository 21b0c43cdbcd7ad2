"""Named points at which a process that drives a view may die, and the way to die there.

Production code has no switch for this: a test's own process puts a double around one step of a view
that it has made, and the double ends the process by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

FOLD_POINTS = (
    "after read",
    "before aside",
    "after aside",
    "before apply",
    "after apply",
    "after move",
)
REPLAY_POINTS = ("before redo", "after redo", "after unpark")


def die_at(view: Any, point: str, *, at_call: int = 1) -> None:
    """Makes a view's process kill itself before or after the n-th call of a step."""
    when, step = point.split()
    owner, method = _step(view, step)
    calls = 0
    real: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        is_last = calls == at_call  # known now: others may call while this one waits
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*arguments, **named)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    # Some owners are shared and frozen, so the double goes in below their own checks.
    object.__setattr__(owner, method, deadly)


def _step(view: Any, step: str) -> tuple[Any, str]:
    """What takes a step, and its method: the view, its record, its storage or the storage's engine."""
    kept_as = ("batches", "storage", "documents")
    storage = next((s for name in kept_as if (s := getattr(view, name, None))), None)
    known = {
        "plan": (view.record, "plan"),
        "read": (view, "_read"),
        "load": (view, "_stored"),
        "aside": (view.record, "record_aside"),
        "unpark": (view.record, "unpark"),
        "move": (view.record, "at_once"),
    }
    if step in known:
        return known[step]
    owner: Any = storage
    return (owner, step) if hasattr(owner, step) else (owner._engine, step)  # noqa: SLF001
