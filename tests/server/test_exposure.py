"""Who may reach a server: open only where nobody else is, or on purpose."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pie.errors import UsageError
from pie.server.config import Auth, ServerConfig
from pie.server.settings import check_exposure, is_loopback
from pie.server.users_edit import add_key, remove_key

from .keys import openssh

LOCAL = ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost"]
REACHED = ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", "127.0.0.1.nip"]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


@pytest.mark.parametrize("host", LOCAL)
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [*REACHED, "", "127.0.0.1:80"])
def test_what_may_be_reached_from_elsewhere_is_not_loopback(host: str) -> None:
    """Names are not looked up: what they stand for may change."""
    assert not is_loopback(host)


@pytest.mark.parametrize("host", LOCAL)
@pytest.mark.parametrize("auth", [None, Auth.NONE])
def test_on_loopback_names_are_believed_and_the_log_says_so(
    host: str, auth: Auth | None, users: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    assert check_exposure(ServerConfig(host=host, auth=auth), users) is Auth.NONE

    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "names of users are not proven" in record.getMessage()


@pytest.mark.parametrize("host", REACHED)
def test_elsewhere_users_log_in(host: str, users: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_key(users, "ann", openssh("Ed25519"))

    assert check_exposure(ServerConfig(host=host), users) is Auth.KEYS
    assert caplog.records == []


@pytest.mark.parametrize(
    "config",
    [
        ServerConfig(host="0.0.0.0"),
        ServerConfig(host="0.0.0.0", auth=Auth.KEYS),
        ServerConfig(host="127.0.0.1", auth=Auth.KEYS),
    ],
)
def test_where_nobody_could_log_in_nothing_is_served(config: ServerConfig, users: Path) -> None:
    with pytest.raises(UsageError, match=f"{users} is not there; add one: pie auth add USER"):
        check_exposure(config, users)

    add_key(users, "ann", openssh("Ed25519"))
    remove_key(users, "ann")
    with pytest.raises(UsageError, match=f"{users} has none; add one: pie auth add USER"):
        check_exposure(config, users)

    users.write_text("[users.ann.keys]")
    with pytest.raises(UsageError, match=f"{users} has none"):
        check_exposure(config, users)


def test_an_unsafe_users_file_is_refused_before_anybody_is_served(users: Path) -> None:
    add_key(users, "ann", openssh("Ed25519"))
    users.chmod(0o644)

    with pytest.raises(UsageError, match="has mode 0644 instead of 0600"):
        check_exposure(ServerConfig(host="0.0.0.0"), users)


def test_open_to_all_is_possible_if_it_was_written_down_and_is_warned_of(
    users: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig(host="0.0.0.0", port=8081, auth=Auth.NONE)

    assert check_exposure(config, users) is Auth.NONE

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        'auth = "none" at 0.0.0.0: whoever reaches port 8081 may run programs, under any user name'
    )
