"""Which texts are public keys, and whose signatures count."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.keys import MAX_TEXT, parse_key

from .keys import KINDS, client_key, openssh, pem, pkcs1, secret

_FORM = serialization.PrivateFormat
PRIVATE_FORMS = [
    *((kind, form) for kind in KINDS for form in (_FORM.OpenSSH, _FORM.PKCS8)),
    *((kind, _FORM.TraditionalOpenSSL) for kind in KINDS if kind != "Ed25519"),
]


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_key(text)
    return str(caught.value)


def rsa_of(bits: int) -> str:
    """A public key of that size, of which nobody has the private one: making it would take long."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits) - 1)
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return numbers.public_key().public_bytes(encoding, form).decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [openssh, pem])
def test_all_kinds_are_read_from_openssh_and_pem(kind: str, form: object) -> None:
    assert callable(form)
    key = parse_key(f"\n  {form(kind)}\n")

    assert key.kind == kind
    assert key.openssh == openssh(kind)


def test_rsa_is_read_from_pkcs1_too() -> None:
    assert parse_key(pkcs1("RSA 2048")).openssh == openssh("RSA 2048")


def test_a_comment_is_no_part_of_a_key() -> None:
    key = parse_key(f"{openssh('Ed25519')} ann@laptop, the old one")

    assert key.openssh == openssh("Ed25519")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signer", KINDS)
def test_only_the_owner_s_signature_counts(kind: str, signer: str) -> None:
    """Signed as the published client signs, by keys of all kinds."""
    signature = client_key(signer).sign(b"challenge")

    assert parse_key(openssh(kind)).has_signed(b"challenge", signature) == (kind == signer)


@pytest.mark.parametrize("kind", KINDS)
def test_another_message_or_another_key_of_the_kind_does_not_count(kind: str) -> None:
    key = parse_key(openssh(kind))

    assert not key.has_signed(b"other", client_key(kind).sign(b"challenge"))
    assert not key.has_signed(b"challenge", client_key(kind, 1).sign(b"challenge"))


@pytest.mark.parametrize("kind", KINDS)
@given(signature=st.binary(max_size=600))
def test_no_bytes_break_the_check_of_a_signature(kind: str, signature: bytes) -> None:
    assert not parse_key(openssh(kind)).has_signed(b"challenge", signature)


@pytest.mark.parametrize("bits", [2048, 3072, 8192])
def test_rsa_keys_within_the_bounds_are_accepted(bits: int) -> None:
    assert parse_key(rsa_of(bits)).kind == f"RSA {bits}"


@pytest.mark.parametrize("bits", [1024, 2047, 8193, 16384])
def test_rsa_keys_out_of_bounds_are_refused_with_the_bounds(bits: int) -> None:
    assert refusal(rsa_of(bits)) == (f"an RSA key of {bits} bits; from 2048 to 8192 are accepted")


@pytest.mark.parametrize(("kind", "form"), PRIVATE_FORMS)
def test_a_private_key_is_refused_and_not_repeated(
    kind: str, form: serialization.PrivateFormat
) -> None:
    """Whatever is printed may end in a log."""
    text = secret(kind, form=form)

    reason = refusal(text)

    assert "private key" in reason
    assert not any(line in reason for line in text.splitlines())


def test_a_private_key_without_its_frame_is_recognised() -> None:
    text = "".join(secret("Ed25519").splitlines()[1:-1])

    assert refusal(text).startswith("that is a private key")


def test_an_error_shows_no_cause_that_could_show_the_text() -> None:
    with pytest.raises(UsageError) as caught:
        parse_key("ssh-ed25519 AAAAsecret")

    assert caught.value.__suppress_context__
    assert "AAAA" not in str(caught.value)


ED448 = ed448.Ed448PrivateKey.generate().public_key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 hello",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP",
        "-----BEGIN PUBLIC KEY-----\nhello\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA==",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        f'from="10.0.0.1" {openssh("Ed25519")}',
        f"{openssh('Ed25519')}\n{openssh('Ed25519', 1)}",
        pem("Ed25519") + pem("Ed25519", 1),
        openssh("RSA 2048").replace("ssh-rsa", "ssh-ed25519"),
        openssh("ECDSA P-521"),
        "\x00" * 50,
        "ssh-ed25519 \udcff",
    ],
    ids=range(17),  # keys are made anew by each process, which have to agree on names
)
def test_what_is_no_such_key_is_refused_with_what_is_accepted(text: str) -> None:
    assert "RSA with 2048 to 8192 bits, Ed25519 or ECDSA P-256 or P-384" in refusal(text)


@pytest.mark.parametrize("kind", ["ECDSA P-521", "ECDSA K-256"])
def test_other_curves_are_refused_by_name(kind: str) -> None:
    assert re.fullmatch(
        "an ECDSA key on curve secp(521r1|256k1); P-256 and P-384 are accepted", refusal(pem(kind))
    )


def test_other_kinds_in_pem_are_refused() -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo

    assert "a kind that is not accepted" in refusal(ED448.public_bytes(encoding, form).decode())


def test_a_long_text_is_refused_by_its_length() -> None:
    assert refusal("x" * 20_000) == f"no public key: 20000 characters; at most {MAX_TEXT} are one"


@given(st.text(max_size=300))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    for form in (text, f"ssh-ed25519 {text}", f"-----BEGIN PUBLIC KEY-----\n{text}"):
        refusal(form)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(kind: str, tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(openssh(kind))
    command = ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert parse_key(openssh(kind)).fingerprint == shown.split()[1]


def test_a_key_without_a_name_gets_type_and_fingerprint() -> None:
    key = parse_key(openssh("ECDSA P-256"))

    assert key.default_name == f"ecdsa-{key.fingerprint.removeprefix('SHA256:')[:8]}"
