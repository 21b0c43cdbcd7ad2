"""An app that sends its events to endpoints, for the command line, over the database of the environment."""

from __future__ import annotations

from jobs_shop import Ordered

from headwater import App, Retry

app = App("sender", events=[Ordered], tenant="main")
app.webhooks([Ordered], retry=Retry(attempts=50, first_seconds=0.02, factor=1, jitter=0))
