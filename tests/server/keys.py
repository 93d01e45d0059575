"""Keys of all kinds, made once, and how the published client signs with them."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .published_client import published

KINDS = ("RSA 2048", "Ed25519", "ECDSA P-256", "ECDSA P-384")

_PUBLIC = serialization.PublicFormat
_PRIVATE = serialization.PrivateFormat


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """The same for the same arguments; another for another number."""
    del number
    name, _, size = kind.partition(" ")
    if name == "RSA":
        return rsa.generate_private_key(65537, int(size))
    if name == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
        "K-256": ec.SECP256K1(),
    }
    return ec.generate_private_key(curves[size])


def openssh(kind: str, number: int = 0) -> str:
    """As in a file id_….pub."""
    return _public(kind, number, serialization.Encoding.OpenSSH, _PUBLIC.OpenSSH)


def pem(kind: str, number: int = 0) -> str:
    return _public(kind, number, serialization.Encoding.PEM, _PUBLIC.SubjectPublicKeyInfo)


def pkcs1(kind: str, number: int = 0) -> str:
    """RSA only."""
    return _public(kind, number, serialization.Encoding.PEM, _PUBLIC.PKCS1)


def _public(kind: str, number: int, encoding: Any, form: Any) -> str:
    key = private_key(kind, number).public_key()
    return str(key.public_bytes(encoding, form).decode())


def secret(kind: str, number: int = 0, form: Any = _PRIVATE.OpenSSH) -> str:
    """The private key as text."""
    nothing = serialization.NoEncryption()
    data = private_key(kind, number).private_bytes(serialization.Encoding.PEM, form, nothing)
    return str(data.decode())


def client_key(kind: str, number: int = 0) -> Any:
    """What the published client signs with."""
    return published("0.2.1").ParsedPrivateKey.parse(secret(kind, number))
