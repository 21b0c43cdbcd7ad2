"""One POST to an address that was checked: no proxy, no redirect, no second look at the name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache

from headwater.errors import ExtraMissing
from headwater.jobs.outgoing.addresses import address_of, target_of

TIMEOUT_SECONDS = 15.0
_SHOWN_BYTES = 200


class NotTaken(Exception):
    """The receiver did not take the message. ``gone`` where it says that it never will."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


@cache
def trusting() -> ssl.SSLContext:
    """The system's authorities, or those in SSL_CERT_FILE."""
    return ssl.create_default_context()


async def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool = False) -> None:
    """Sends JSON to a URL. ``private`` allows addresses of private networks.

    Raises EndpointRefused, ExtraMissing, and NotTaken for any answer but 2xx.
    """
    try:
        import httpx
    except ImportError as error:
        raise ExtraMissing(
            "Sending to endpoints needs the package httpx.",
            hint="pip install 'headwater[webhooks]'.",
        ) from error
    target = target_of(url)
    address = await address_of(target, private=private)
    host = f"[{address}]" if ":" in address else address
    # A connection of its own each time: one to the same address may have been opened for another name.
    transport = httpx.AsyncHTTPTransport(
        verify=trusting(), limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
    )
    told = {"content-type": "application/json", "user-agent": "Headwater", **headers, "host": target.authority}  # fmt: skip
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client,  # noqa: S113 - limited above
            client.stream(
                "POST",
                f"{target.scheme}://{host}:{target.port}{target.path}",
                content=body,
                headers=told,
                extensions={"sni_hostname": target.host},
                follow_redirects=False,
            ) as answer,
        ):
            if answer.is_success:
                return
            shown = b""
            async for part in answer.aiter_raw():
                shown = (shown + part)[:_SHOWN_BYTES]
                if len(shown) >= _SHOWN_BYTES:
                    break
            text = shown.decode("utf-8", "replace")
            raise NotTaken(
                f"the receiver answered {answer.status_code}: {text}",
                gone=answer.status_code == 410,
            )
    except TimeoutError as error:
        raise NotTaken(f"the receiver did not answer in {TIMEOUT_SECONDS:.0f} s") from error
    except (httpx.HTTPError, OSError) as error:
        raise NotTaken(f"{type(error).__name__}: {error}") from error
