"""The password that others than this machine need."""

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode

WRONG_PASSWORD_SECONDS = 1.0


class Password:
    """A password, kept as its scrypt hash."""

    def __init__(self, text: str) -> None:
        self._salt = secrets.token_bytes(16)
        self._hash = self._of(text)
        self._known: set[bytes] = set()  # digests of headers that were right: scrypt is slow
        self._one_at_a_time = asyncio.Lock()

    async def fits(self, header: str) -> bool:
        """Whether a header of HTTP Basic has it, whatever the user's name; "no" takes a while."""
        digest = hashlib.sha256(self._salt + header.encode()).digest()
        if digest in self._known:
            return True
        async with self._one_at_a_time:
            if await asyncio.to_thread(self._is_right, header):
                self._known.add(digest)
                return True
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            return False

    def _is_right(self, header: str) -> bool:
        kind, _, encoded = header.partition(" ")
        try:
            _, _, text = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        return kind.lower() == "basic" and hmac.compare_digest(self._of(text), self._hash)

    def _of(self, text: str) -> bytes:
        return hashlib.scrypt(text.encode(), salt=self._salt, n=2**14, r=8, p=1)
