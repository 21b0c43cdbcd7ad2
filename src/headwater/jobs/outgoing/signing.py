"""Signatures by Standard Webhooks 1.0: HMAC-SHA256 over id, time and body. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from headwater.errors import EndpointRefused

_PREFIX = "whsec_"


def new_secret() -> str:
    """A secret of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that sign. Raises EndpointRefused where it is no secret of 24 to 64 bytes in base64."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EndpointRefused(
            "The secret is not base64.", hint="Write whsec_ and 24 to 64 bytes in base64."
        ) from error
    if not 24 <= len(key) <= 64:
        raise EndpointRefused(
            f"The secret has {len(key)} bytes.", hint="Write whsec_ and 24 to 64 bytes in base64."
        )
    return key


def signed(message_id: str, at_seconds: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The headers of a message, with a signature for each secret, the newest first."""
    content = f"{message_id}.{at_seconds}.".encode() + body
    signatures = [
        base64.b64encode(hmac.digest(key_of(key), content, hashlib.sha256)).decode() for key in keys
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
