"""The headers of a message in JetStream."""

from __future__ import annotations

from headwater.views.marking import CONTENT_TYPE, marked
from headwater.views.messages import Message


def headers_for(message: Message) -> dict[str, str]:
    """The headers to send."""
    headers, mark = marked(message), message.mark
    if message.body:
        headers["Nats-Msg-Id"] = f"{mark.log}/{mark.epoch}/{mark.position}"
        headers["Content-Type"] = CONTENT_TYPE
    return headers
