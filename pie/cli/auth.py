"""`pie auth`: who may log in to a server, and with which keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pie.errors import UsageError

from .home import open_home

auth = typer.Typer(help="Who may log in to `pie serve`, by public keys.", no_args_is_help=True)

_MAX_BYTES = 1 << 16

User = Annotated[str, typer.Argument(metavar="USER")]


@auth.command("add")
def add(
    user: User,
    name: Annotated[
        str | None,
        typer.Argument(metavar="KEYNAME", help="Without it: the key's type and fingerprint."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With the public key; else stdin has it.")
    ] = None,
) -> int:
    """Let a user log in with a key, one more if it has some.

    The key is a public one: RSA (2048 to 8192 bits), Ed25519 or ECDSA (P-256, P-384), as OpenSSH
    text or PEM. A server that runs takes it at the next login.
    """
    from pie.server.users_edit import add_key

    text = _read_key(key)
    home = open_home()
    home.make_data()
    name = add_key(home.users, user, text, name)
    _print(f"user {user} may log in with the key {name}")
    return 0


@auth.command("remove")
def remove(
    user: User,
    name: Annotated[
        str | None, typer.Argument(metavar="KEYNAME", help="Without it: the user with all keys.")
    ] = None,
) -> int:
    """Take away a key of a user, or all. Who is logged in stays so until it disconnects."""
    from pie.server.users_edit import remove_key

    home = open_home()
    home.make_data()
    for gone in remove_key(home.users, user, name):
        _print(f"user {user} may no longer log in with the key {gone}")
    return 0


@auth.command("list")
def show() -> int:
    """Show all users: a line for each key, with its kind and its fingerprint."""
    from pie.server.users import read_users

    path = open_home().users
    users = read_users(path) if path.exists() else {}
    for user, keys in sorted(users.items()):
        for name, key in keys.items():
            _print(f"{user}\t{name}\t{key.kind}\t{key.fingerprint}")
    return 0


def _read_key(file: Path | None) -> str:
    """The text of a key file or of stdin."""
    if file is None:
        if sys.stdin.isatty():
            sys.stderr.write("the public key, then Ctrl-D:\n")
        return _text(sys.stdin.buffer, "stdin")
    try:
        with file.open("rb") as opened:
            return _text(opened, str(file))
    except OSError as error:
        # Somebody may have put a private key itself here, which must not be shown.
        shown = file if str(file).isprintable() else "the file"
        raise UsageError(f"cannot read {shown}: {error.strerror}") from None


def _text(source: BinaryIO, name: str) -> str:
    data = source.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{name} has more than {_MAX_BYTES} bytes, which no public key has")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is no text: byte {error.start} is not UTF-8") from None


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
