"""Logins: who gets in, what the others learn, and what can be tried again."""

from __future__ import annotations

import asyncio
import base64
import inspect
import logging
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.server.authentication import DISABLED, Answer, Authentication, Gate, LoginFrame
from pie.server.config import Auth
from pie.server.frames import Identification, InternalAuthenticate, Signature
from pie.server.protocol import decode
from pie.server.users import Users
from pie.server.users_edit import add_key, remove_key

from .keys import KINDS, client_key, openssh
from .published_client import VERSIONS, published


def identification(name: str) -> Identification:
    return Identification(corr_id=1, username=name)


def signature(text: str) -> Signature:
    return Signature(corr_id=2, signature=text)


def token(text: str) -> InternalAuthenticate:
    return InternalAuthenticate(corr_id=3, token=text)


def signed(answer: Answer, kind: str, number: int = 0) -> Signature:
    """What the published client sends for a challenge."""
    assert answer.successful
    made = client_key(kind, number).sign(base64.b64decode(answer.text))
    return signature(base64.b64encode(made).decode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a users file in which Ann has a key of each kind and Bob one."""
    path = tmp_path / "users.toml"
    for kind in KINDS:
        add_key(path, "ann", openssh(kind), kind)
    add_key(path, "bob", openssh("Ed25519", 1), "only")
    return path


@pytest.fixture
def checking(path: Path) -> Authentication:
    return Authentication(Auth.KEYS, Users(path))


@pytest.fixture
def trusting(tmp_path: Path) -> Authentication:
    """There is no users file, and nobody misses it."""
    return Authentication(Auth.NONE, Users(tmp_path / "nothing.toml"))


@pytest.mark.parametrize("kind", KINDS)
def test_any_key_of_a_user_opens(checking: Authentication, kind: str) -> None:
    gate = checking.gate()
    challenge = gate.receive(identification("ann"))
    assert len(base64.b64decode(challenge.text, validate=True)) == 48
    assert gate.user is None

    answer = gate.receive(signed(challenge, kind))

    assert answer == Answer(True, "Authenticated")
    assert gate.user == "ann"


def test_a_key_of_another_user_does_not(checking: Authentication) -> None:
    gate = checking.gate()
    answer = gate.receive(signed(gate.receive(identification("bob")), "Ed25519"))

    assert_late(answer, "Signature verification failed")
    assert gate.user is None


def assert_late(answer: Answer, text: str) -> None:
    """The connection ends, and neither soon nor after a time that tells anything."""
    assert (answer.successful, answer.text, answer.close) == (False, text, True)
    assert 1 <= answer.delay_seconds <= 3


def test_nobody_learns_which_users_there_are(checking: Authentication) -> None:
    """A name that is not there gets a challenge like any other, and then the same refusal."""
    known, unknown = checking.gate(), checking.gate()

    first = [known.receive(identification("bob")), unknown.receive(identification("mallory"))]
    second = [
        known.receive(signed(first[0], "RSA 2048")),
        unknown.receive(signed(first[1], "RSA 2048")),
    ]

    for answer in first:
        assert len(answer.text) == 64
        assert (answer.successful, answer.close, answer.delay_seconds) == (True, False, 0.0)
    for answer in second:
        assert_late(answer, "Signature verification failed")


def test_the_log_tells_the_operator_which_of_the_two_it_was(
    checking: Authentication, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pie.server.authentication")
    for name in ("bob", "mallory"):
        gate = checking.gate()
        gate.receive(signed(gate.receive(identification(name)), "RSA 2048"))

    assert [record.getMessage() for record in caplog.records] == [
        "a login as 'bob' has failed: none of its 1 keys has signed",
        "a login as 'mallory' has failed: there is no such user",
    ]


def test_every_challenge_is_new_and_good_for_one_signature(checking: Authentication) -> None:
    """What was signed for one connection opens no other, and an old challenge is gone."""
    first, second = checking.gate(), checking.gate()
    answers = [first.receive(identification("ann")), second.receive(identification("ann"))]
    again = first.receive(identification("ann"))

    assert len({answer.text for answer in (*answers, again)}) == 3
    stolen = second.receive(signed(answers[0], "Ed25519"))
    assert_late(stolen, "Signature verification failed")
    old = first.receive(signed(answers[0], "Ed25519"))
    assert_late(old, "Signature verification failed")


def test_after_a_failure_nothing_counts(checking: Authentication) -> None:
    gate = checking.gate()
    challenge = gate.receive(identification("ann"))
    gate.receive(signature(base64.b64encode(b"wrong").decode()))

    for frame in (signed(challenge, "Ed25519"), identification("ann"), token(checking.token)):
        assert gate.receive(frame) == Answer(
            False, "The login has failed: connect again", close=True
        )
    assert gate.user is None


def test_a_name_may_be_corrected_before_it_is_proved(checking: Authentication) -> None:
    gate = checking.gate()
    gate.receive(identification("amm"))

    gate.receive(signed(gate.receive(identification("ann")), "Ed25519"))

    assert gate.user == "ann"


@pytest.mark.parametrize("text", ["a", "ab$=", "ä", "AAAA====A", "\n"])
def test_a_signature_that_is_not_base64_is_named(checking: Authentication, text: str) -> None:
    gate = checking.gate()
    gate.receive(identification("ann"))

    answer = gate.receive(signature(text))

    assert answer.text.startswith("Invalid signature encoding: ")
    assert (answer.successful, answer.close) == (False, True)


def test_a_huge_signature_is_not_looked_at(checking: Authentication) -> None:
    gate = checking.gate()
    gate.receive(identification("ann"))

    assert gate.receive(signature("A" * 5000)).text == (
        "Invalid signature encoding: 5000 characters, at most 4096 are one"
    )


@pytest.mark.parametrize("mode", Auth)
def test_a_signature_without_a_challenge_ends_the_connection(path: Path, mode: Auth) -> None:
    gate = Authentication(mode, Users(path)).gate()

    answer = gate.receive(signature(""))

    assert (answer.successful, answer.close, gate.user) == (False, True, None)


def test_without_authentication_a_claim_is_enough(trusting: Authentication) -> None:
    gate = trusting.gate()

    assert gate.receive(identification("ann")) == Answer(
        True, "Authenticated (Engine disabled authentication)"
    )
    assert gate.user == "ann"


@pytest.mark.parametrize("mode", Auth)
@pytest.mark.parametrize(
    "name", ["", " ann", "ann\n", "internal", "a" * 129, "\u200bann", "a\x00b"]
)
def test_some_names_cannot_be_claimed(path: Path, mode: Auth, name: str) -> None:
    gate = Authentication(mode, Users(path)).gate()

    answer = gate.receive(identification(name))

    assert (answer.successful, answer.close, gate.user) == (False, True, None)
    assert "user name" in answer.text


def test_local_is_a_name_like_any_other(trusting: Authentication) -> None:
    """It is the user of `pie run`, whose engine no client reaches."""
    gate = trusting.gate()
    gate.receive(identification("local"))

    assert gate.user == "local"


@pytest.mark.parametrize("mode", Auth)
def test_the_token_makes_internal(path: Path, mode: Auth) -> None:
    authentication = Authentication(mode, Users(path))
    gate = authentication.gate()

    assert gate.receive(token(authentication.token)) == Answer(True, "Authenticated")
    assert gate.user == "internal"


def test_a_token_is_64_random_alphanumerics(path: Path) -> None:
    tokens = {Authentication(Auth.KEYS, Users(path)).token for _ in range(10)}

    assert len(tokens) == 10
    assert all(re.fullmatch("[A-Za-z0-9]{64}", each) for each in tokens)


def test_the_token_is_in_no_text_of_the_object(checking: Authentication) -> None:
    assert checking.token not in repr(checking)
    assert checking.token not in repr(checking.gate())


@pytest.mark.parametrize("wrong", ["", "x", "ä" * 64, "A" * 64, "A" * 100_000])
def test_a_wrong_token_is_answered_late(checking: Authentication, wrong: str) -> None:
    gate = checking.gate()

    assert_late(gate.receive(token(wrong)), "Invalid token")
    assert gate.user is None


def test_delays_are_drawn_anew(checking: Authentication) -> None:
    delays = {checking.gate().receive(token("wrong")).delay_seconds for _ in range(10)}

    assert len(delays) > 1


@pytest.mark.parametrize(
    "frame", [identification("bob"), identification("internal"), signature("!"), token("wrong")]
)
@pytest.mark.parametrize("mode", Auth)
def test_once_in_everything_is_fine_and_changes_nothing(
    path: Path, mode: Auth, frame: LoginFrame
) -> None:
    gate = Authentication(mode, Users(path)).gate()
    challenge = gate.receive(identification("ann"))
    if mode is Auth.KEYS:
        gate.receive(signed(challenge, "Ed25519"))
    assert gate.user == "ann"

    assert gate.receive(frame) == Answer(True, "Already authenticated")
    assert gate.user == "ann"


def test_a_user_who_was_removed_meanwhile_stays_out(checking: Authentication, path: Path) -> None:
    gate = checking.gate()
    challenge = gate.receive(identification("ann"))
    remove_key(path, "ann")

    assert_late(gate.receive(signed(challenge, "Ed25519")), "Signature verification failed")


@pytest.mark.parametrize("when", ["before", "between"])
def test_with_a_broken_file_nobody_gets_in_and_no_one_learns_why(
    checking: Authentication, path: Path, when: str
) -> None:
    gate = checking.gate()
    if when == "before":
        path.chmod(0o644)
        answer = gate.receive(identification("ann"))
    else:
        challenge = gate.receive(identification("ann"))
        path.chmod(0o644)
        answer = gate.receive(signed(challenge, "Ed25519"))

    assert answer == Answer(
        False, "Nobody can log in at present: the reason is in the server's log", close=True
    )
    assert gate.user is None


def test_refreshing_reads_the_file_only_if_it_matters(
    checking: Authentication, trusting: Authentication, caplog: pytest.LogCaptureFixture
) -> None:
    trusting.refresh()
    assert caplog.records == []

    checking.refresh()
    checking.users.path.unlink()
    checking.refresh()
    assert "nobody can log in" in caplog.text


frames = st.one_of(
    st.builds(identification, st.sampled_from(["ann", "bob", "eve", "internal", " x", ""])),
    st.builds(signature, st.text(max_size=20)),
    st.builds(token, st.text(max_size=70)),
)


@given(sent=st.lists(frames, max_size=8))
def test_nothing_but_a_signature_or_the_token_opens(
    tmp_path_factory: pytest.TempPathFactory, sent: list[LoginFrame]
) -> None:
    path = tmp_path_factory.getbasetemp() / "users.toml"
    if not path.exists():
        add_key(path, "ann", openssh("Ed25519"))
    gate = Authentication(Auth.KEYS, Users(path)).gate()
    over = False
    for frame in sent:
        answer = gate.receive(frame)
        assert not over or answer.close
        over = answer.close
        assert gate.user is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_text_without_authentication_is_the_one_that_clients_compare(version: str) -> None:
    assert f'"{DISABLED}"' in inspect.getsource(published(version).PieClient.authenticate)


def talk(client: Any, gate: Gate, action: str, *arguments: object) -> None:
    """Have a published client log in, with our answers in place of a connection's."""

    async def ask(message: dict[str, Any]) -> tuple[bool, str]:
        frame = decode(msgpack.packb(message | {"corr_id": 1}))
        assert isinstance(frame, LoginFrame)
        answer = gate.receive(frame)
        return answer.successful, answer.text

    client._send_msg_and_wait = ask
    asyncio.run(getattr(client, action)(*arguments))


@pytest.mark.parametrize("version", VERSIONS)
def test_published_clients_log_in(
    checking: Authentication, trusting: Authentication, version: str
) -> None:
    client = published(version).PieClient("ws://nowhere")
    for authentication, key in ((trusting, None), *((checking, client_key(k)) for k in KINDS)):
        gate = authentication.gate()
        talk(client, gate, "authenticate", "ann", key)
        assert gate.user == "ann"

    gate = checking.gate()
    talk(client, gate, "internal_authenticate", checking.token)
    assert gate.user == "internal"


@pytest.mark.parametrize("version", VERSIONS)
def test_published_clients_are_told_why_not(checking: Authentication, version: str) -> None:
    client = published(version).PieClient("ws://nowhere")
    key = client_key("Ed25519")

    with pytest.raises(Exception, match=r"'mallory': Signature verification failed"):
        talk(client, checking.gate(), "authenticate", "mallory", key)
    with pytest.raises(Exception, match=r"rejected by server: a user name is 1 to 128"):
        talk(client, checking.gate(), "authenticate", " ann", key)
    with pytest.raises(Exception, match=r"requires public key authentication"):
        talk(client, checking.gate(), "authenticate", "ann")
    with pytest.raises(Exception, match=r"Invalid token"):
        talk(client, checking.gate(), "internal_authenticate", "wrong")
