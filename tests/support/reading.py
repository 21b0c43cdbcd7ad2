"""A reader as a process of its own that dies by SIGKILL at a named point: ``python -m tests.support.reading URL POINT N``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from headwater.capture.replication import Replication, _Reader
from headwater.capture.slot import SlotConnection
from headwater.log import Database

POINTS = ("after begin", "before call", "after send", "before execute", "after execute", "after confirm")  # fmt: skip


def die_at(point: str, at_call: int) -> None:
    """Ends the process before or after the n-th call of a step."""
    when, step = point.split()
    calls = 0

    def counted(moment: str, matters: bool = True) -> None:
        nonlocal calls
        if matters and moment == when:
            calls += 1
            if calls == at_call:
                os.kill(os.getpid(), signal.SIGKILL)

    if step == "confirm":
        real_confirm = SlotConnection.confirm

        def confirm(self, *arguments, **named):
            counted("before")
            real_confirm(self, *arguments, **named)
            counted("after")

        SlotConnection.confirm = confirm
        return
    if step == "execute":  # the COMMIT itself
        real_commit = _Reader._commit

        async def commit(self):
            real = self._log.execute

            async def execute(query, *arguments, **named):
                matters = "COMMIT" in str(query)
                counted("before", matters)
                result = await real(query, *arguments, **named)
                counted("after", matters)
                return result

            self._log.execute = execute
            await real_commit(self)
            self._log.execute = real

        _Reader._commit = commit
        return
    name = f"_{step}"
    real_step = getattr(_Reader, name)

    async def deadly(self, *arguments, **named):
        counted("before")
        result = await real_step(self, *arguments, **named)
        counted("after")
        return result

    setattr(_Reader, name, deadly)


async def main(url: str) -> None:
    relay = Database(url, "headwater_relay")
    reader = Replication(relay, url, 2**34)
    await reader.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        die_at(sys.argv[2], int(sys.argv[3]))
    asyncio.run(main(sys.argv[1]))
