"""What a server counts as it goes, and what it looks like at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

import attrs

from pie.ids import EventCode

from .buckets import SECONDS, Buckets


class Refusal(StrEnum):
    """Why a client did not get what it wanted: a setting of ServerConfig or Quotas, or a word."""

    CREDENTIALS = "credentials"
    """It could not prove who it is."""
    ALLOWED_ORIGINS = "allowed_origins"
    DRAINING = "draining"
    """The server is about to end."""
    INSTANCES = "instances"
    """The engine has as many as it takes, in all or of the user."""
    UPLOAD = "upload"
    """Chunks that do not fit together, or are too many; no program; no room for it."""
    LOGIN_SECONDS = "login_seconds"
    MAX_CONNECTIONS = "max_connections"
    MAX_UNAUTHENTICATED = "max_unauthenticated"
    CONNECTIONS = "connections"
    """Of the user."""
    MESSAGES_PER_SECOND = "messages_per_second"
    LAUNCHES_PER_MINUTE = "launches_per_minute"
    UPLOADS_PER_MINUTE = "uploads_per_minute"


@attrs.define(eq=False)
class ServerCounters:
    """Since the server began. Whoever does something adds to it."""

    connections: int = 0
    """Clients that have connected."""
    uploads: int = 0
    """Programs that are complete."""
    uploaded_bytes: int = 0
    dropped_bytes: int = 0
    """Output of detached instances that was dropped for newer."""
    protocol_errors: int = 0
    refusals: Counter[Refusal] = attrs.field(factory=Counter)
    launches: int = 0
    ended: Counter[EventCode] = attrs.field(factory=Counter)
    """Instances, by their terminal event."""
    launch_seconds: Buckets = attrs.field(factory=lambda: Buckets(SECONDS))
    """From a client's request to the reply."""


@attrs.frozen(kw_only=True)
class ServerState:
    """A server at one moment."""

    connections: int = 0
    instances: Mapping[str, int] = attrs.field(factory=dict)
    """How many there are of each status: Attached, Detached, Finished."""
    healthy: bool = True
