"""What the entrance takes, and how much of it: every limit in one place, with its default."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one process that serves HTTP."""

    body_bytes: int = 10 * 1024 * 1024
    """The largest body."""
    body_seconds: float = 20.0
    """How long a body may take to arrive."""
    header_bytes: int = 32 * 1024
    """The most bytes of a request's line and headers."""
    header_seconds: float = 10.0
    """How long a request's line and headers may take to arrive."""
    batch_events: int = 10_000
    """The most events in one request."""
    nesting: int = 32
    """How deep an event's JSON may nest."""
    page_rows: int = 1_000
    """The most events or rows in one answer."""
    wait_seconds: float = 30.0
    """The longest that a read may wait, for a token or for events."""
    requests_per_second: float = 2_000.0
    """How many requests a second an access token may make in the long run."""
    request_burst: int = 4_000
    """How many requests it may make at once."""
    unknown_tokens_per_second: float = 50.0
    """How many unknown access tokens a process looks up in a second, whoever sends them."""
    token_cache_seconds: float = 5.0
    """How long a process goes on trusting an access token that it has seen: the window after a revocation."""
    ticket_seconds: int = 30
    """How long a ticket may wait to be used."""
    connections: int = 2_500
    """The most open connections of a process, live channels among them."""
    keep_alive_seconds: int = 20
    """How long a connection may stay open between requests."""
    channels: int = 2_000
    """The most live channels of a process."""
    channel_messages: int = 2_000
    """How many messages may wait for a client before it reads on from the log."""
    channel_bytes: int = 1024 * 1024
    """How many bytes may wait for it."""
    slow_seconds: float = 10.0
    """How long a client of a channel may take nothing before it is dropped."""
    heartbeat_seconds: float = 15.0
    """How often a quiet channel says that it is alive."""
    presence_seconds: int = 30
    """How long members stay present after their process was last heard of."""
    message_bytes: int = 4 * 1024
    """The largest message that a WebSocket client may send."""
    drain_seconds: int = 5
    """How long requests under way may take when the server stops."""
