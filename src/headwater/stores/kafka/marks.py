"""The headers of a message in Kafka."""

from __future__ import annotations

from typing import Any

from headwater.views.marking import CONTENT_TYPE, kept_of, marked
from headwater.views.messages import Kept, Message

_SUBJECT = "Headwater-Subject"


def headers_for(message: Message) -> dict[str, str]:
    """The headers to send."""
    headers = {**marked(message), _SUBJECT: message.subject}
    if message.body:
        headers["content-type"] = CONTENT_TYPE
    return headers


def kept_from(record: Any) -> Kept:
    """A record of a topic. Sequence numbers begin at 1, offsets at 0."""
    headers = {
        name: (value or b"").decode(errors="replace") for name, value in record.headers() or ()
    }
    subject = headers.get(_SUBJECT, "")
    return kept_of(record.offset() + 1, subject, headers, record.value() or b"")
