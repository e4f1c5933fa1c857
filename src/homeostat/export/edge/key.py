"""The key that signs what leaves the project: made on first use, it never leaves the machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homeostat.domain.errors import Corrupt
from homeostat.stores.files import write_atomic


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key pair (RFC 8032)."""

    private: Ed25519PrivateKey

    @classmethod
    def of(cls, path: Path) -> Key:
        """The key in the file (its 32 bytes as hexadecimal text). Errors: `Corrupt` when it holds something else."""
        if not path.exists():
            write_atomic(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode())  # in a folder of 0700
            path.chmod(0o600)
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text())))
        except ValueError:
            raise Corrupt(
                "the signing key can't be read", where=str(path), way_out="Restore it, or delete it to make a new one."
            ) from None

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key."""
        return hashlib.sha256(self.public).hexdigest()

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self.private.sign(data)
