"""What a message says of itself in its headers, whatever the bus. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.views.messages import Kept, Mark, Message

CONTENT_TYPE = "application/cloudevents+json"


def marked(message: Message) -> dict[str, str]:
    """The headers that name the message's place in the log."""
    mark = message.mark
    headers = {
        "Headwater-Log": mark.log,
        "Headwater-Epoch": str(mark.epoch),
        "Headwater-Fence": str(mark.fence),
        "Headwater-Generation": str(mark.generation),
        "Headwater-Position": str(mark.position),
        "Headwater-Event": mark.event,
    }
    if message.body:
        headers["Headwater-After"] = str(message.after)
    return headers


def mark_of(headers: Mapping[str, str]) -> Mark | None:
    """The mark, or None where the message is not Headwater's."""
    try:
        return Mark(
            headers["Headwater-Log"],
            int(headers["Headwater-Epoch"]),
            int(headers["Headwater-Fence"]),
            int(headers["Headwater-Generation"]),
            int(headers["Headwater-Position"]),
            headers.get("Headwater-Event", ""),
        )
    except (KeyError, ValueError):
        return None


def kept_of(sequence: int, subject: str, headers: Mapping[str, str], body: bytes) -> Kept:
    """A message of a channel. One that is not Headwater's has a mark without a log."""
    mark = mark_of(headers) or Mark("", 0, 0, 0, 0, "")
    after = headers.get("Headwater-After", "")
    return Kept(sequence, Message(subject, mark, body, int(after) if after.isdigit() else 0))
