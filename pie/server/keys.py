"""Public keys of users: what is accepted as one, and checking signatures."""

from __future__ import annotations

import base64
import hashlib

import attrs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from pie.errors import UsageError

Key = rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

MAX_TEXT = 16_384
"""Characters of a key: one of RSA with 8192 bits has 1,400."""
_RSA_BITS = (2048, 8192)
_OPENSSH = ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384")
"""Not certificates, and not keys of security tokens (sk-...), which sign something else."""
_PEM = ("-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----")
_PRIVATE = ("PRIVATE KEY", "PuTTY-User-Key-File", "b3BlbnNzaC1rZXktdjE")
"""The last one is how the base64 of OpenSSH's private keys begins, should its frame be missing."""
_ACCEPTED = (
    "RSA with 2048 to 8192 bits, Ed25519 or ECDSA P-256 or P-384, as OpenSSH text or PEM public key"
)
_HASHES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("P-256", hashes.SHA256()),
    "secp384r1": ("P-384", hashes.SHA384()),
}


@attrs.frozen
class PublicKey:
    """One key of a user."""

    text: str
    """As it was given."""
    _key: Key

    @property
    def kind(self) -> str:
        """For people: "Ed25519", "RSA 4096", "ECDSA P-256"."""
        if isinstance(self._key, rsa.RSAPublicKey):
            return f"RSA {self._key.key_size}"
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return f"ECDSA {_HASHES[self._key.curve.name][0]}"
        return "Ed25519"

    @property
    def openssh(self) -> str:
        """The key on one line, without a comment: the same for the same key."""
        encoding = serialization.Encoding.OpenSSH
        return self._key.public_bytes(encoding, serialization.PublicFormat.OpenSSH).decode()

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        blob = base64.b64decode(self.openssh.split()[1])
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    @property
    def default_name(self) -> str:
        """Its type and the beginning of its fingerprint."""
        return f"{self.kind.split()[0].lower()}-{self.fingerprint.removeprefix('SHA256:')[:8]}"

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """RSA: PKCS#1 v1.5, SHA-256. ECDSA: DER, SHA-256 for P-256 and SHA-384 for P-384."""
        try:
            if isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(self._key, ec.EllipticCurvePublicKey):
                _, algorithm = _HASHES[self._key.curve.name]
                self._key.verify(signature, message, ec.ECDSA(algorithm))
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def parse_key(text: str) -> PublicKey:
    """Understand a public key; UsageError, which never repeats the text, if it is none of ours."""
    text = text.strip()
    if any(sign in text for sign in _PRIVATE):
        raise UsageError(
            "that is a private key, of which nothing was kept: keep it secret and give the public "
            "one (of OpenSSH keys, the file that ends with .pub)"
        )
    if len(text) > MAX_TEXT:
        raise UsageError(f"no public key: {len(text)} characters; at most {MAX_TEXT} are one")
    key = _load(text)
    _check_strength(key)
    return PublicKey(text, key)


def _load(text: str) -> Key:
    words = text.split(maxsplit=1)
    form = words[0] if words else ""
    key: object
    try:
        if form in _OPENSSH and len(text.splitlines()) == 1:
            key = serialization.load_ssh_public_key(text.encode())
        elif text.startswith(_PEM) and text.count("-----BEGIN ") == 1:
            key = serialization.load_pem_public_key(text.encode())
        else:
            raise UsageError(f"no public key that is accepted, or more than one: {_ACCEPTED}")
    except (ValueError, UnsupportedAlgorithm):  # whose texts are of no use to the user
        raise UsageError(
            f"a damaged public key, or a kind that is not accepted: {_ACCEPTED}"
        ) from None
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        raise UsageError(f"a public key of a kind that is not accepted: {_ACCEPTED}")
    return key


def _check_strength(key: Key) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        least, most = _RSA_BITS
        if not least <= key.key_size <= most:
            raise UsageError(
                f"an RSA key of {key.key_size} bits; from {least} to {most} are accepted"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _HASHES:
        raise UsageError(f"an ECDSA key on curve {key.curve.name}; P-256 and P-384 are accepted")
