"""Named points at which a process that drives a view may die, and the way to die there.

Production code has no switch for this: a test's own process puts a double around one step of a view
that it has made, and the double ends the process by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from headwater.commands import Deciding
from headwater.jobs.desk import Desk
from headwater.jobs.taken import RunningJob
from headwater.sagas.recording import Record
from headwater.sagas.view import SagasView

FOLD_POINTS = (
    "after read",
    "before aside",
    "after aside",
    "before apply",
    "after apply",
    "after move",
)
REPLAY_POINTS = ("before redo", "after redo", "after unpark")


JOB_POINTS = (
    "before take",
    "after take",
    "before settle",
    "after settle",
    "before finish",
    "after finish",
)

SAGA_POINTS = (
    "before begin",
    "after begin",
    "before do",
    "after do",
    "before write",
    "after write",
    "before apply",
    "after apply",
)


def die_at(view: Any, point: str, *, at_call: int = 1) -> None:
    """Makes a view's process kill itself before or after the n-th call of a step."""
    when, step = point.split()
    owner, method = _step(view, step)
    kill_at(owner, method, when, at_call)


def die_working(point: str, *, at_call: int = 1) -> None:
    """Makes a process that runs jobs kill itself before or after it takes or settles some for the n-th time.

    The step ``finish`` is the last of a job's own transaction, before its commit.
    """
    when, step = point.split()
    owner: Any = RunningJob if step == "finish" else Desk
    kill_at(owner, {"take": "_take", "settle": "_settle", "finish": "_finish"}[step], when, at_call)


def die_in_saga(point: str, *, at_call: int = 1) -> None:
    """Makes a process that runs sagas kill itself before or after the n-th step of a kind.

    ``begin`` takes an instance, ``do`` commits a command with its record, ``write`` records anything else, ``apply`` is
    a batch of the view that starts and wakes.
    """
    when, step = point.split()
    known: dict[str, tuple[type, str]] = {
        "begin": (Record, "begin"),
        "do": (Deciding, "do_with"),
        "write": (Record, "write"),
        "apply": (SagasView, "apply"),
    }
    owner, method = known[step]
    kill_at(owner, method, when, at_call)


def kill_at(owner: Any, method: str, when: str, at_call: int) -> None:
    """Kills the process before or after the n-th call of a method of an object or a class."""
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

    if isinstance(owner, type):
        setattr(owner, method, deadly)
    else:  # some owners are shared and frozen, so the double goes in below their own checks
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
