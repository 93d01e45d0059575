"""`pie auth`: keys in, keys out, and a file that the server takes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pie.server.users import read_users
from tests.server.keys import openssh, pem, secret

from .conftest import Ran
from .support import COMMAND, environment

Pie = Callable[..., Ran]


@pytest.fixture
def users(home: Path) -> Path:
    """Where the users file will be."""
    return home / "authorized_users.toml"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Decide what is on stdin."""

    def decide(data: bytes) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)

    return decide


def test_a_key_on_stdin_is_added_listed_and_removed(
    pie: Pie, users: Path, typed: Callable[[bytes], None]
) -> None:
    typed(openssh("Ed25519").encode())

    added = pie("auth", "add", "ann", "laptop")

    assert added == Ran(0, "user ann may log in with the key laptop\n", "")
    key = read_users(users)["ann"]["laptop"]
    assert pie("auth", "list").out == f"ann\tlaptop\tEd25519\t{key.fingerprint}\n"
    removed = pie("auth", "remove", "ann", "laptop")
    assert removed == Ran(0, "user ann may no longer log in with the key laptop\n", "")
    assert pie("auth", "list") == Ran(0, "", "")


def test_a_key_from_a_file_gets_a_name(pie: Pie, users: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(pem("RSA 2048"))

    ran = pie("auth", "add", "ann", "--key", tmp_path / "key.pem")

    (name,) = read_users(users)["ann"]
    assert name.startswith("rsa-")
    assert ran.out == f"user ann may log in with the key {name}\n"


def test_a_user_is_removed_with_all_keys(pie: Pie, users: Path, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "key").write_text(openssh("Ed25519", number))
        pie("auth", "add", "ann", f"key {number}", "--key", tmp_path / "key")

    ran = pie("auth", "remove", "ann")

    assert ran.out == (
        "user ann may no longer log in with the key key 0\n"
        "user ann may no longer log in with the key key 1\n"
    )
    assert read_users(users) == {}


def test_file_and_folder_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Read by the server at once; upstream's own tool writes what its server refuses."""
    home = tmp_path / "home"
    ran = subprocess.run(
        [*COMMAND, "auth", "add", "ann"],
        input=openssh("Ed25519"),
        text=True,
        capture_output=True,
        env=environment(home),
        umask=0,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}
    assert list(read_users(home / "authorized_users.toml")) == ["ann"]


@pytest.mark.parametrize(
    ("arguments", "typed_in", "reason"),
    [
        (("add", "internal"), openssh("Ed25519"), "'internal' is the server's own"),
        (("add", "ann\n"), openssh("Ed25519"), "character 4 is U+000A"),
        (("add", "ann", " x"), openssh("Ed25519"), "a key's name is 1 to 128"),
        (("add", "ann"), "", "no public key that is accepted"),
        (("add", "ann"), secret("Ed25519"), "that is a private key"),
        (("add", "ann"), "x" * 70_000, "stdin has more than 65536 bytes"),
        (("add", "ann"), "\udcff", "stdin is no text: byte 0 is not UTF-8"),
        (("add", "ann", "--key", "nowhere"), "", "cannot read nowhere: No such file"),
        (("add",), "", "Missing argument 'USER'."),
        (("remove", "ann"), "", "there is no user 'ann'"),
    ],
    ids=range(10),  # keys are made anew by each process, which have to agree on names
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    pie: Pie,
    users: Path,
    typed: Callable[[bytes], None],
    arguments: tuple[str, ...],
    typed_in: str,
    reason: str,
) -> None:
    typed(os.fsencode(typed_in))

    ran = pie("auth", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert reason in ran.err
    assert ran.err.count("\n") == 1
    assert not users.exists()


@pytest.mark.parametrize("place", ["stdin", "file", "file name", "name", "user"])
def test_a_private_key_is_nowhere_to_be_seen(
    pie: Pie, users: Path, tmp_path: Path, typed: Callable[[bytes], None], place: str
) -> None:
    """Neither on the screen, whatever argument it was taken for, nor in a file."""
    key = secret("Ed25519")
    (tmp_path / "id_ed25519").write_text(key)
    typed(key.encode() if place == "stdin" else openssh("Ed25519").encode())
    more = {
        "stdin": ("ann",),
        "file": ("ann", "--key", tmp_path / "id_ed25519"),
        "file name": ("ann", "--key", key),
        "name": ("ann", "--", key),
        "user": ("--", key),
    }[place]

    ran = pie("auth", "add", *more)

    assert ran.code == 2
    for line in key.splitlines()[1:-1]:
        assert line not in ran.out + ran.err
    assert not users.exists()


def test_a_file_that_others_can_read_is_refused_by_all(
    pie: Pie, users: Path, typed: Callable[[bytes], None]
) -> None:
    typed(openssh("Ed25519").encode())
    pie("auth", "add", "ann")
    users.chmod(0o644)

    for line in (("list",), ("remove", "ann"), ("add", "bob")):
        typed(openssh("Ed25519").encode())
        ran = pie("auth", *line)
        assert ran.code == 2
        assert f"has mode 0644 instead of 0600: chmod 600 {users}" in ran.err


def test_other_commands_do_not_pay_for_it() -> None:
    """Parsing keys needs a large library, which `pie run` does not."""
    code = "import pie.cli.app, sys; print({'cryptography', 'pie.server'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
