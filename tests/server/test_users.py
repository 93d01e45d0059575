"""The users file: what is read, what is written, and when it is read again."""

from __future__ import annotations

import logging
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.errors import UsageError
from pie.server.names import check_name, check_user
from pie.server.users import MAX_KEYS, Users, read_users
from pie.server.users_edit import add_key, remove_key

from .keys import KINDS, openssh, pem, pkcs1, secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "authorized_users.toml"


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_users(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def names(path: Path) -> dict[str, list[str]]:
    return {user: list(keys) for user, keys in read_users(path).items()}


def test_a_hand_written_file_is_read(path: Path) -> None:
    write(
        path,
        f"""
        [users.ann.keys]
        laptop = "{openssh("Ed25519")} ann@laptop"
        work = '''{pem("ECDSA P-384")}'''
        [users."Bob B.".keys]
        "old one" = \"\"\"{pkcs1("RSA 2048")}\"\"\"
        [users.nobody.keys]
        """,
    )

    users = read_users(path)

    assert {name: key.kind for name, key in users["ann"].items()} == {
        "laptop": "Ed25519",
        "work": "ECDSA P-384",
    }
    assert users["Bob B."]["old one"].kind == "RSA 2048"
    assert users["nobody"] == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("users = 3", "the layout is [users.NAME.keys]"),
        ("[users]\nann = 'key'", "[users.'ann']: the layout is [users.NAME.keys]"),
        ("[users.ann]\nkeys = 'key'", "[users.'ann']: the layout is [users.NAME.keys]"),
        ("[users.ann.kyes]", "[users.'ann']: unknown entry 'kyes'; only 'keys' may be there"),
        ("[user.ann.keys]", "unknown entry 'user'; only 'users' may be there"),
        ("[users.ann.keys]\na = 3", "[users.'ann'.keys] 'a': a key is a text, not of type int"),
        ("[users.ann.keys]\na = 'x'", "[users.'ann'.keys] 'a': no public key that is accepted"),
        ("[users.internal.keys]", "[users.'internal']: the user name 'internal' is the server's"),
        ("[users.' ann'.keys]", "[users.' ann']: a user name is 1 to 128 printable characters"),
        ("[users.ann.keys", "not TOML: "),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path: Path, text: str, reason: str) -> None:
    write(path, text)

    assert refusal(path).startswith(reason)


def test_bytes_that_are_no_text_are_named(path: Path) -> None:
    path.write_bytes(b"abc\xff")
    path.chmod(0o600)

    assert refusal(path) == "not UTF-8 at byte 3"


def test_a_private_key_in_the_file_is_not_repeated(path: Path) -> None:
    write(path, f"[users.ann.keys]\na = '''{secret('Ed25519')}'''")

    reason = refusal(path)

    assert "that is a private key" in reason
    assert secret("Ed25519").splitlines()[2] not in reason


def test_keys_are_added_and_taken_away(path: Path) -> None:
    assert add_key(path, "ann", openssh("Ed25519"), "laptop") == "laptop"
    generated = add_key(path, "ann", pem("RSA 2048"))
    add_key(path, "bob", openssh("ECDSA P-256"), "only")

    assert generated.startswith("rsa-")
    assert names(path) == {"ann": ["laptop", generated], "bob": ["only"]}

    assert remove_key(path, "ann", "laptop") == ("laptop",)
    assert remove_key(path, "bob", "only") == ("only",)
    assert names(path) == {"ann": [generated]}

    add_key(path, "ann", openssh("Ed25519"), "new")
    assert remove_key(path, "ann") == (generated, "new")
    assert names(path) == {}


def test_the_file_is_private_from_its_first_moment(path: Path) -> None:
    """Whatever the umask: upstream's tool writes one that its own server refuses."""
    before = os.umask(0)
    try:
        add_key(path, "ann", openssh("Ed25519"))
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_key_s_name_is_given_once(path: Path) -> None:
    add_key(path, "ann", openssh("Ed25519"), "laptop")

    with pytest.raises(UsageError, match="user 'ann' has another key named 'laptop'"):
        add_key(path, "ann", openssh("Ed25519", 1), "laptop")
    add_key(path, "bob", openssh("Ed25519", 1), "laptop")


def test_the_same_key_is_not_added_twice(path: Path) -> None:
    add_key(path, "ann", openssh("Ed25519"), "laptop")

    with pytest.raises(UsageError, match="user 'ann' has this key already, as 'laptop'"):
        add_key(path, "ann", pem("Ed25519"), "desktop")


def test_keys_of_a_user_are_bounded(path: Path) -> None:
    """A login tries them all."""
    for number in range(MAX_KEYS):
        add_key(path, "ann", openssh("Ed25519", number))

    with pytest.raises(UsageError, match="33 keys of one user; at most 32 are allowed"):
        add_key(path, "ann", openssh("Ed25519", MAX_KEYS))


@pytest.mark.parametrize(
    ("user", "name", "reason"),
    [
        ("bob", None, "there is no user 'bob'"),
        ("ann", "desktop", "user 'ann' has no key 'desktop'; there are 'laptop'"),
        ("a\nb", None, r"character 2 is U\+000A"),
    ],
)
def test_what_is_not_there_cannot_be_taken_away(
    path: Path, user: str, name: str | None, reason: str
) -> None:
    add_key(path, "ann", openssh("Ed25519"), "laptop")
    before = path.read_bytes()

    with pytest.raises(UsageError, match=reason):
        remove_key(path, user, name)

    assert path.read_bytes() == before


def test_a_file_that_is_not_valid_is_not_written_over(path: Path) -> None:
    write(path, "[users.ann.kyes]")

    with pytest.raises(UsageError, match="unknown entry 'kyes'"):
        add_key(path, "ann", openssh("Ed25519"))

    assert path.read_text() == "[users.ann.kyes]"


def test_what_others_wrote_by_hand_stays_as_it_is(path: Path) -> None:
    text = f"{openssh('Ed25519')} \\t a \\u007f \\\\ comment \\u0001"
    write(path, f'[users.ann.keys]\n"a" = "{text}"\nb = """{pem("ECDSA P-256")}"""')
    before = tomllib.loads(path.read_text())["users"]["ann"]["keys"]

    add_key(path, "bob", openssh("RSA 2048"))

    after = tomllib.loads(path.read_text())["users"]["ann"]["keys"]
    assert {name: key.strip() for name, key in before.items()} == after


good_names = st.text(min_size=1, max_size=128).filter(
    lambda name: name.isprintable() and name == name.strip() and name != "internal"
)


@given(user=good_names, name=good_names, kind=st.sampled_from(KINDS))
def test_whatever_a_name_holds_is_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, user: str, name: str, kind: str
) -> None:
    path = tmp_path_factory.mktemp("users") / "users.toml"

    add_key(path, user, openssh(kind), name)

    assert read_users(path)[user][name].openssh == openssh(kind)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "not 0 characters"),
        ("a" * 129, "not 129 characters"),
        (" a", "one is there"),
        ("a ", "one is there"),
        ("a\nb", "character 2 is U+000A"),
        ("a\x7f", "character 2 is U+007F"),
        ("\x85a", "character 1 is U+0085"),
        ("ab\u202e", "character 3 is U+202E"),
        ("a\u200bb", "character 2 is U+200B"),
        ("a\ud800", "character 2 is U+D800"),
        ("internal", "the user name 'internal' is the server's own"),
    ],
)
def test_a_name_that_no_client_may_have_is_refused(name: str, reason: str) -> None:
    """Control characters would forge lines of a log, and invisible ones other users' names."""
    with pytest.raises(UsageError) as caught:
        check_user(name)

    assert str(caught.value).endswith(reason)


@given(st.text(min_size=30, max_size=200).map(lambda text: f"k{text}k\n"))
def test_a_refused_name_is_not_repeated(name: str) -> None:
    """Somebody may have pasted a private key in its place."""
    with pytest.raises(UsageError) as caught:
        check_name(name)

    assert name.strip() not in str(caught.value)


class TestUsers:
    """The file while the server runs."""

    def test_a_change_counts_from_the_next_login_on(self, path: Path) -> None:
        users = Users(path)
        add_key(path, "ann", openssh("Ed25519"), "laptop")
        assert list(users.keys_of("ann")) == ["laptop"]

        add_key(path, "ann", openssh("Ed25519", 1), "desktop")
        assert list(users.keys_of("ann")) == ["laptop", "desktop"]

        remove_key(path, "ann")
        assert users.keys_of("ann") == {}

    def test_an_unchanged_file_is_not_read_again(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = Users(path)
        add_key(path, "ann", openssh("Ed25519"))
        users.refresh()
        monkeypatch.setattr("pie.server.users.read_private", None)

        assert users.keys_of("ann")

    @pytest.mark.parametrize("harm", ["mode", "gone", "content"])
    def test_a_file_that_has_gone_bad_lets_nobody_in_and_says_why_once(
        self, path: Path, harm: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Yesterday's keys may be those that were taken away."""
        users = Users(path)
        add_key(path, "ann", openssh("Ed25519"))
        assert users.keys_of("ann")
        good = path.read_bytes()
        if harm == "mode":
            path.chmod(0o644)
        elif harm == "gone":
            path.unlink()
        else:
            path.write_bytes(b"[users.ann")

        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                with pytest.raises(UsageError, match=str(path)):
                    users.keys_of("ann")
        (record,) = caplog.records
        assert record.getMessage().startswith("nobody can log in: ")
        assert str(path) in record.getMessage()

        write(path, good.decode())
        assert users.keys_of("ann")
