"""Who a connection is: challenge and signature, or the server's own token; no input or output.

Nobody learns from the answers which users there are. Every name gets a challenge, and whether the
name or the signature was wrong, the text is the same, after a random delay that drowns the
microseconds by which keys differ. So a mistyped name fails one step later than it could; which of
the two it was is in the log.
"""

from __future__ import annotations

import base64
import logging
import random
import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

from pie.errors import UsageError

from .config import Auth
from .frames import Identification, InternalAuthenticate, Signature
from .keys import PublicKey
from .names import INTERNAL, check_user
from .users import Users

log = logging.getLogger(__name__)

DISABLED = "Authenticated (Engine disabled authentication)"
"""Published clients compare this text, to know that nothing has to be signed."""
CHALLENGE_BYTES = 48
MAX_SIGNATURE = 4096
"""Characters: one of RSA with 8192 bits has 1,368."""
_TOKEN_LENGTH = 64
_FAILURE_SECONDS = (1.0, 3.0)
_random = random.SystemRandom()

LoginFrame: TypeAlias = Identification | Signature | InternalAuthenticate


@attrs.frozen
class Answer:
    """What the client is told."""

    successful: bool
    text: str
    close: bool = False
    """The connection, when the text is sent."""
    delay_seconds: float = 0.0
    """How long to wait before the text is sent."""


def make_token() -> str:
    """One that nobody can guess."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(_TOKEN_LENGTH))


@attrs.frozen
class Authentication:
    """What all connections share."""

    mode: Auth
    users: Users
    """Not looked at with Auth.NONE."""
    token: str = attrs.field(factory=make_token, repr=False)
    """Who has it is the user `internal`."""

    @classmethod
    def of(cls, mode: Auth, users_path: Path) -> Authentication:
        """With a new token, and the users of that file."""
        return cls(mode, Users(users_path))

    def gate(self) -> Gate:
        """For one new connection."""
        return Gate(self)

    def refresh(self) -> None:
        """Look at the users file; a gate does it, too, but then the loop waits for a long one."""
        if self.mode is Auth.KEYS:
            self.users.refresh()


@attrs.define
class Gate:
    """What one connection has proved."""

    _authentication: Authentication
    user: str | None = attrs.field(init=False, default=None)
    """Who it is, once that is known."""
    _challenge: tuple[str, bytes] | None = attrs.field(init=False, default=None, repr=False)
    """Who is to sign, and what; used once."""
    _failed: bool = attrs.field(init=False, default=False)

    def receive(self, frame: LoginFrame) -> Answer:
        """The answer to a frame. After one with `close`, all others are refused."""
        if self.user is not None:
            return Answer(True, "Already authenticated")
        if self._failed:
            return Answer(False, "The login has failed: connect again", close=True)
        answer = self._decide(frame)
        self._failed = answer.close
        return answer

    def _decide(self, frame: LoginFrame) -> Answer:
        match frame:
            case Identification(username=name):
                return self._identified(name)
            case Signature(signature=text):
                return self._signed(text)
            case InternalAuthenticate(token=token):
                return self._internal(token)

    def _identified(self, name: str) -> Answer:
        self._challenge = None
        try:
            check_user(name)
        except UsageError as error:
            return Answer(False, str(error), close=True)
        if self._authentication.mode is Auth.NONE:
            self.user = name
            return Answer(True, DISABLED)
        if self._keys_of(name) is None:
            return _UNAVAILABLE
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        self._challenge = (name, challenge)
        return Answer(True, base64.b64encode(challenge).decode())

    def _signed(self, text: str) -> Answer:
        if self._challenge is None:
            return Answer(False, "Nothing to sign: send `identification` first", close=True)
        name, challenge = self._challenge
        self._challenge = None
        if len(text) > MAX_SIGNATURE:
            reason = f"{len(text)} characters, at most {MAX_SIGNATURE} are one"
            return Answer(False, f"Invalid signature encoding: {reason}", close=True)
        try:
            signature = base64.b64decode(text, validate=True)
        except ValueError as error:
            return Answer(False, f"Invalid signature encoding: {error}", close=True)
        keys = self._keys_of(name)
        if keys is None:
            return _UNAVAILABLE
        for key_name, key in keys.items():
            if key.has_signed(challenge, signature):
                log.info("user %r has logged in with the key %r", name, key_name)
                self.user = name
                return Answer(True, "Authenticated")
        reason = f"none of its {len(keys)} keys has signed" if keys else "there is no such user"
        log.info("a login as %r has failed: %s", name, reason)
        return _late("Signature verification failed")

    def _internal(self, token: str) -> Answer:
        self._challenge = None
        if not secrets.compare_digest(token.encode(), self._authentication.token.encode()):
            log.info("a login with a wrong internal token has failed")
            return _late("Invalid token")
        self.user = INTERNAL
        return Answer(True, "Authenticated")

    def _keys_of(self, name: str) -> Mapping[str, PublicKey] | None:
        """None: the users file, which has logged the reason, is of no use at present."""
        try:
            return self._authentication.users.keys_of(name)
        except UsageError:
            return None


_UNAVAILABLE = Answer(
    False, "Nobody can log in at present: the reason is in the server's log", close=True
)


def _late(text: str) -> Answer:
    return Answer(False, text, close=True, delay_seconds=_random.uniform(*_FAILURE_SECONDS))
