"""What the server needs to know beside its engine and models, frozen."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import attrs

from pie.config import MIB


class Auth(StrEnum):
    """How a client proves who it is."""

    NONE = "none"
    """Not at all: the name it claims is its namespace."""
    KEYS = "keys"
    """By a signature of one of the keys that `pie auth add` has put into the users file."""


@attrs.frozen(kw_only=True)
class Quotas:
    """What one user may use; each says what happens at it. The engine's own are in EngineConfig."""

    connections: int = 512
    """Open at once: one more is closed with the reason."""
    kept_instances: int = 256
    """Instances that have ended while detached, and whose output waits for their client: the
    oldest is forgotten."""
    messages_per_second: float = 2000.0
    """Requests and messages to instances, over all connections of the user: beyond it requests
    are refused, and messages wait."""
    message_burst: int = 4000
    """So many at once are no matter."""
    launches_per_minute: float = 6000.0
    """Beyond it launches are refused; a tenth of it may come at once."""
    uploads_per_minute: float = 60.0
    """Programs: beyond it an upload is refused at its first chunk; a tenth may come at once."""
    stored_bytes: int = 1024 * MIB
    """Of programs that the user has uploaded: beyond it those used longest ago make room, but for
    the newest version of each name; an upload that then does not fit is refused."""


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Where and how to serve."""

    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 8080
    """0: any free one."""
    auth: Auth | None = None
    """How clients prove who they are. None: not at all on loopback, by keys elsewhere."""
    tls_certificate: Path | None = None
    """PEM file with the server's certificate and its chain: clients then use wss://."""
    tls_key: Path | None = None
    """PEM file with the certificate's key. Both or none."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may connect, as "https://example.org"; browsers send where a page is from."""
    blob_end_chunk: bool = True
    """Announce a blob to clients as one chunk longer than it is. The published Python client
    delivers no blob otherwise; the Rust client wants the true number."""
    grace_seconds: float = 30.0
    """After SIGTERM: how long instances may go on before they are ended."""
    login_seconds: float = 10.0
    """A connection that has not authenticated by then is closed."""
    stall_seconds: float = 300.0
    """A client that takes nothing of what is sent to it for so long counts as gone."""
    max_connections: int = 4096
    """Beyond it a connection is refused."""
    max_unauthenticated: int = 256
    """Beyond it the oldest connection that has not authenticated is closed."""
    detached_bytes: int = 1 * MIB
    """Of an instance's output that is kept while no client is attached: the newest."""
    kept_seconds: float = 3600.0
    """How long the end of a detached instance waits for its client."""
    max_program_bytes: int = 128 * MIB
    """A larger upload is refused."""
    max_blob_bytes: int = 64 * MIB
    """From a client to an instance: a larger one is refused."""
    max_uploading_bytes: int = 512 * MIB
    """In unfinished uploads of all clients: one beyond it is refused."""
    upload_idle_seconds: float = 60.0
    """An unfinished upload that gets no chunk for so long is dropped, with a reply."""
    step_seconds: float = 120.0
    """A step of a model that takes longer fails its passes, and the server is unhealthy."""
    quotas: Quotas = attrs.field(factory=Quotas)
