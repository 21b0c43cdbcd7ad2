"""Lua scripts from the folder ``lua``, by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name by which a server that has seen it knows it."""

    text: str

    @property
    def sha(self) -> str:
        """The server's name for it."""
        return hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis's own choice


def script(name: str) -> Script:
    """The script of that name."""
    return Script(files("headwater.stores.redis").joinpath("lua", f"{name}.lua").read_text())
