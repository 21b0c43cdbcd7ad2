"""What all operations share: the app, the limits, who may enter, how far the log is published."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from headwater.app import App
from headwater.entrances.http.access import Gate
from headwater.entrances.http.limits import Limits
from headwater.entrances.http.live.hub import Hub
from headwater.entrances.http.watermark import Watermark


@dataclass(slots=True)
class Service:
    """One app, served by HTTP. The app must be open while requests come."""

    app: App
    limits: Limits
    gate: Gate = field(init=False)
    watermark: Watermark = field(init=False)
    live: Hub = field(init=False)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        database = self.app.database()
        self.gate = Gate(database, self.limits)
        self.watermark = Watermark(database)
        self.live = Hub(self.app, self.limits, self.watermark)

    async def close(self) -> None:
        """Ends what waits. Idempotent."""
        await self.live.close()
        await self.watermark.close()
