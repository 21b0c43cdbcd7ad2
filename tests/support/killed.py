"""Programs of tests that run until they are killed: by themselves at a named point, or at the end."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager


@asynccontextmanager
async def process(program, database, point, at_call):
    """A process of the program over a database, until a point or until the block ends."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, program.__file__, database.url, point, str(at_call),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
