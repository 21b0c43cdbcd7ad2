"""A real mail server of a test's own, which notes what it was handed and answers as it is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import default

from aiosmtpd.smtp import SMTP, AuthResult


class Mailbox:
    def __init__(self):
        self.got = []
        self.answer = lambda receiver: "250 OK"
        self.logins = []
        self.port = 0

    async def handle_RCPT(self, _server, _session, envelope, address, options):  # noqa: N802 - aiosmtpd's
        answer = self.answer(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return answer

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.got.append(message_from_bytes(envelope.content, policy=default))
        return "250 taken"

    def login(self, _server, _session, _envelope, _mechanism, login):
        self.logins.append((login.login.decode(), login.password.decode()))
        return AuthResult(success=self.logins[-1][1] == "right")


@asynccontextmanager
async def mailbox(tls=None):
    """``tls`` is what the server presents after STARTTLS, which it then requires before a login."""
    box = Mailbox()
    secured = (
        {"tls_context": tls, "require_starttls": True, "authenticator": box.login} if tls else {}
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, hostname="localhost", **secured), "127.0.0.1", 0
    )
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
