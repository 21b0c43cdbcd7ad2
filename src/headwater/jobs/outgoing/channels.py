"""Ways to tell people something: a chat's webhook, any URL that takes JSON, mail.

Addresses, passwords and secrets are read from the app when a message is sent, and are in no table.
"""

from __future__ import annotations

import asyncio
import smtplib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Literal, Protocol

import msgspec

from headwater.errors import JobDefinitionError
from headwater.jobs.outgoing.addresses import target_of
from headwater.jobs.outgoing.sending import TIMEOUT_SECONDS, NotTaken, post, trusting
from headwater.jobs.outgoing.signing import key_of, signed

Tls = Literal["starttls", "implicit", "none"]
_PORTS: Mapping[Tls, int] = {"starttls": 587, "implicit": 465, "none": 25}
_MARKS = {"alert.raised": ":red_circle: ", "alert.resolved": ":large_green_circle: "}
_LONGEST_SUBJECT, _LONGEST_TEXT = 500, 1_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """What a person is told. ``data`` is what programs read of it; ``unsubscribe`` a URL at which mail is refused from then on.

    A subject is a line of up to 500 characters, text and HTML are up to 1,000,000 each.
    """

    subject: str
    text: str
    html: str | None = None
    kind: str = "notice"
    data: Mapping[str, Any] = field(default_factory=dict)
    unsubscribe: str | None = None

    def __post_init__(self) -> None:
        if len(self.subject) > _LONGEST_SUBJECT or len(self.subject.splitlines()) > 1:
            raise ValueError(f"a subject is one line of up to {_LONGEST_SUBJECT} characters")
        if max(len(self.text), len(self.html or "")) > _LONGEST_TEXT:
            raise ValueError(f"a text is up to {_LONGEST_TEXT:,} characters")


class Channel(Protocol):
    """One way to tell people. ``addressed`` where it needs to know a person's address."""

    @property
    def name(self) -> str:
        """What the app calls it."""
        ...

    @property
    def addressed(self) -> bool:
        """Whether nobody is told without an address."""
        ...

    async def send(self, message: Message, *, message_id: str, to: str | None = None) -> None:
        """Sends a message; the id is the same at each attempt. Raises NotTaken, and EndpointRefused."""
        ...


@dataclass(frozen=True, slots=True)
class Slack:
    """A webhook of Slack, or of a chat that takes what Slack takes."""

    name: str
    url: str = field(repr=False)
    private: bool = False
    addressed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        target_of(self.url)

    async def send(self, message: Message, *, message_id: str, to: str | None = None) -> None:
        """Posts the subject and the text. Raises NotTaken and EndpointRefused."""
        _ = message_id, to
        mark = _MARKS.get(message.kind, "")
        text = f"{mark}*{_plain(message.subject)}*\n{_plain(message.text)}"
        await post(self.url, msgspec.json.encode({"text": text}), {}, private=self.private)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Any URL that takes JSON, signed by Standard Webhooks where it has a secret."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    private: bool = False
    addressed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        target_of(self.url)
        if self.secret is not None:
            key_of(self.secret)

    async def send(self, message: Message, *, message_id: str, to: str | None = None) -> None:
        """Posts ``{"type", "timestamp", "data"}``. Raises NotTaken and EndpointRefused."""
        data = dict(message.data)
        if message.kind == "notice":
            data |= {"to": to, "subject": message.subject, "text": message.text}
        now = datetime.now(UTC).isoformat()
        body = _encoder.encode({"type": message.kind, "timestamp": now, "data": data})
        headers = {"webhook-id": message_id}
        if self.secret is not None:
            headers = signed(message_id, int(time.time()), body, [self.secret])
        await post(self.url, body, headers, private=self.private)


@dataclass(frozen=True, slots=True)
class Mail:
    """Mail by SMTP. ``to`` are whom alerts are sent to; a notice goes to the person's own address.

    ``tls`` is ``starttls`` (port 587), ``implicit`` (465), or ``none`` (25) for a server of the same machine.
    A server's certificate is checked against the system's authorities, or those in SSL_CERT_FILE.
    """

    name: str
    host: str
    sender: str
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls = "starttls"
    to: Sequence[str] = ()

    def __post_init__(self) -> None:
        for address in (self.sender, *self.to):
            if (wrong := _malformed(address)) is not None:
                raise JobDefinitionError(
                    f"{address!r} of the channel {self.name!r} is no address of mail: {wrong}.",
                    hint="Write it as name@example.com.",
                )
        if self.tls not in _PORTS or (self.user is not None and self.tls == "none"):
            raise JobDefinitionError(
                f"The channel {self.name!r} would send a password in the clear, or its tls is unknown.",
                hint='Use tls="starttls" or tls="implicit"; tls="none" only without a user.',
            )

    @property
    def addressed(self) -> bool:
        """Whether nobody is told without an address."""
        return not self.to

    async def send(self, message: Message, *, message_id: str, to: str | None = None) -> None:
        """Hands a mail to the server. Raises NotTaken; ``gone`` where the server refuses for good."""
        if to is not None and (wrong := _malformed(to)) is not None:
            raise NotTaken(f"the address is malformed: {wrong}", gone=True)
        receivers = [to] if to is not None else list(self.to)
        mail = self._mail(message, message_id, receivers)
        try:
            await asyncio.to_thread(self._hand_over, mail, receivers)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            gone = all(code >= 500 for code in codes)
            raise NotTaken(f"the mail server refused the address: {codes}", gone=gone) from None
        except smtplib.SMTPResponseException as error:
            # What a server says may name the person's address: its code has to do.
            login = isinstance(error, smtplib.SMTPAuthenticationError)
            what = "the login" if login else "the message"
            gone = error.smtp_code >= 500 and not login
            raise NotTaken(f"the mail server answered {error.smtp_code} to {what}", gone=gone) from None  # fmt: skip
        except (smtplib.SMTPException, OSError) as error:
            raise NotTaken(f"the mail server cannot be used: {type(error).__name__}") from None

    def _mail(self, message: Message, message_id: str, receivers: Sequence[str]) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self.sender, ", ".join(receivers), message.subject  # fmt: skip
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = f"<{message_id}@{self.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        if message.unsubscribe is not None:
            mail["List-Unsubscribe"] = f"<{message.unsubscribe}>"
            mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        mail.set_content(message.text)
        if message.html is not None:
            mail.add_alternative(message.html, subtype="html")
        return mail

    def _hand_over(self, mail: EmailMessage, receivers: Sequence[str]) -> None:
        port = self.port if self.port is not None else _PORTS[self.tls]
        if self.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, port, timeout=TIMEOUT_SECONDS, context=trusting())  # fmt: skip
        else:
            server = smtplib.SMTP(self.host, port, timeout=TIMEOUT_SECONDS)
        try:
            if self.tls == "starttls":
                server.starttls(context=trusting())
            if self.user is not None:
                self._log_in(server, self.user)
            server.send_message(mail, self.sender, list(receivers))
        finally:
            with suppress(
                smtplib.SMTPException, OSError
            ):  # it was taken, or why not is said already
                server.quit()

    def _log_in(self, server: smtplib.SMTP, user: str) -> None:
        try:
            server.login(user, self.password or "")
        except (
            smtplib.SMTPServerDisconnected
        ) as error:  # what some servers answer a wrong password with
            raise smtplib.SMTPAuthenticationError(535, b"") from error


_encoder = msgspec.json.Encoder(decimal_format="string")


def _malformed(address: str) -> str | None:
    """What is wrong with an address."""
    if not address.isascii() or len(address) > 254:
        return "it is longer than 254 characters, or not in ASCII"
    try:
        parsed = Address(addr_spec=address)
    except (ValueError, IndexError) as error:
        return type(error).__name__
    return None if parsed.username and parsed.domain else "it has no name or no domain"


def _plain(text: str) -> str:
    """Text in which Slack finds no links or mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
