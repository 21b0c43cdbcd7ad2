"""What rooms above ask of this one: clear text for sealed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class Opener(Protocol):
    """Opens sealed texts."""

    async def opened(self, tenant: str, texts: Collection[str]) -> Mapping[str, str]:
        """What each text opens to; ``(forgotten)`` where its person is. Raises KeyUnavailable, SettingError."""
        ...
