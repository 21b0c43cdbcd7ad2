"""Signatures: with a key of their own, so that who can seal cannot claim that somebody was forgotten."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import Any

from headwater.errors import ExtraMissing, SettingError

_SEED = re.compile(r"[A-Za-z0-9_-]{43}=?")


class Signer:
    """Ed25519 with one private key."""

    def __init__(self, private: Any) -> None:
        self._private = private
        self._public = private.public_key()

    @staticmethod
    def of(text: str) -> Signer:
        """The key as `headwater keys signing` prints it. Raises SettingError, ExtraMissing."""
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise ExtraMissing(
                "Forgetting needs the library cryptography.",
                hint="Install it: pip install 'headwater[personal]'.",
            ) from error
        try:
            if _SEED.fullmatch(text) is None:
                raise binascii.Error  # noqa: TRY301
            seed = base64.urlsafe_b64decode(text.rstrip("=") + "=")
        except binascii.Error as error:
            raise SettingError(
                "HEADWATER_SIGNING_KEY is malformed.",
                hint="Use what `headwater keys signing` prints.",
            ) from error
        return Signer(Ed25519PrivateKey.from_private_bytes(seed))

    @staticmethod
    def new() -> str:
        """A new private key."""
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")

    @property
    def public(self) -> str:
        """The public key, for whoever checks."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return base64.urlsafe_b64encode(self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()  # fmt: skip

    def sign(self, *parts: str) -> str:
        """The signature of texts."""
        return base64.urlsafe_b64encode(self._private.sign(_joined(parts))).decode()

    def holds(self, signature: str, *parts: str) -> bool:
        """Whether a signature is ours of those texts."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(base64.urlsafe_b64decode(signature), _joined(parts))
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def _joined(parts: tuple[str, ...]) -> bytes:
    return b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
