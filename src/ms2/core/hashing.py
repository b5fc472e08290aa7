"""Content hashes, used as cache keys and to verify files."""

import hashlib
from collections.abc import Iterable

Content = bytes | str | Iterable[bytes | str]
"""What is hashed: bytes, text, or an iterable of such parts, of which the concatenation is hashed."""


def digest(content: Content, size: int = 8) -> str:
    """Return the BLAKE2b hash of content as hexadecimal digits.

    Args:
        content: What is hashed; text as UTF-8.
        size: Length of the hash in bytes.
    """
    found = hashlib.blake2b(digest_size=size)
    for part in _parts(content):
        found.update(part)
    return found.hexdigest()


def sha256(content: Content) -> str:
    """Return the SHA-256 of content as hexadecimal digits, to be checked by other programs."""
    found = hashlib.sha256()
    for part in _parts(content):
        found.update(part)
    return found.hexdigest()


def _parts(content: Content) -> Iterable[bytes]:
    for part in [content] if isinstance(content, bytes | str) else content:
        yield part.encode() if isinstance(part, str) else part
