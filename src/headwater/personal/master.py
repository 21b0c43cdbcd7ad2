"""The master key, which wraps the keys of persons and is never in the database."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Sequence
from typing import Any, Protocol

from headwater.errors import ExtraMissing, KeyUnavailable, SettingError

_ENTRY = re.compile(r"([a-z0-9_-]{1,32}):([A-Za-z0-9_-]{43})=?")
_NONCE_BYTES, KEY_BYTES = 12, 32


class KeyService(Protocol):
    """What wraps persons' keys: master keys of our own, or a KMS behind the same two calls."""

    async def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """A key, wrapped, with the name of the master key that did it. ``context`` is bound to it."""
        ...

    async def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """The key again. Raises KeyUnavailable for an unknown name, a wrong master key or context."""
        ...


def cipher(key: bytes) -> Any:
    """AES-256-GCM with a key. Raises ExtraMissing where the library is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ExtraMissing(
            "Personal data needs the library cryptography.",
            hint="Install it: pip install 'headwater[personal]'.",
        ) from error
    return AESGCM(key)


class MasterKeys:
    """Master keys of our own, the newest first; it wraps, and the others still unwrap."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._newest = keys[0][0]
        self._ciphers = {name: cipher(key) for name, key in keys}

    @staticmethod
    def of(text: str) -> MasterKeys:
        """``NAME:KEY`` entries, commas or lines between: 32 bytes each, base64 for URLs. Raises SettingError."""
        keys = []
        for entry in re.split(r"[,\s]+", text.strip()):
            if (found := _ENTRY.fullmatch(entry)) is None:
                raise SettingError(
                    "The master key is malformed.",
                    hint="Write NAME:KEY as `headwater keys new NAME` prints it, the newest first.",
                )
            try:
                keys.append((found[1], base64.urlsafe_b64decode(found[2] + "=")))
            except binascii.Error as error:
                raise SettingError("The master key is no base64.", hint="See headwater keys new.") from error  # fmt: skip
        return MasterKeys(keys)

    @staticmethod
    def new(name: str) -> str:
        """A new entry."""
        return f"{name}:{base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip('=')}"

    async def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """See KeyService."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._newest, nonce + self._ciphers[self._newest].encrypt(nonce, key, context)

    async def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """See KeyService."""
        from cryptography.exceptions import InvalidTag

        if (known := self._ciphers.get(name)) is None:
            raise KeyUnavailable(
                f"There is no master key {name!r} here.",
                hint="Give HEADWATER_MASTER_KEY all keys that are still in use, the newest first.",
            )
        try:
            key: bytes = known.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except InvalidTag as error:
            raise KeyUnavailable(
                f"The master key {name!r} is another than the one that wrapped this person's key.",
                hint="Restore the right one; nothing can be read without it.",
            ) from error
        return key
