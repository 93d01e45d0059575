"""The messages of the wire, field for field as they travel; each is one msgpack map."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]

CHUNK = 256 * 1024
"""Most bytes of a program or a blob in one message."""

Arguments = Annotated[list[str], Meta(max_length=10_000)]


class _Frame(Struct, frozen=True, kw_only=True, tag_field="type"):
    """A map with the key `type`; keys that it does not know are ignored."""


# What clients send.


class Identification(_Frame, frozen=True, kw_only=True, tag="identification"):
    corr_id: U32
    username: str


class Signature(_Frame, frozen=True, kw_only=True, tag="signature"):
    corr_id: U32
    signature: str


class InternalAuthenticate(_Frame, frozen=True, kw_only=True, tag="internal_authenticate"):
    corr_id: U32
    token: str


class Query(_Frame, frozen=True, kw_only=True, tag="query"):
    corr_id: U32
    subject: str
    record: str


class UploadProgram(_Frame, frozen=True, kw_only=True, tag="upload_program"):
    corr_id: U32
    program_hash: str
    chunk_index: U32
    total_chunks: U32
    chunk_data: bytes
    manifest: str | None = None


class LaunchInstance(_Frame, frozen=True, kw_only=True, tag="launch_instance"):
    """Of a program by its hash or by its name; ValueError for one with neither."""

    corr_id: U32
    program_hash: str | None = None
    inferlet: str | None = None
    arguments: Arguments = []
    detached: bool = False

    def __post_init__(self) -> None:
        if self.program_hash is None and self.inferlet is None:
            raise ValueError("it needs a `program_hash` or an `inferlet`")


class LaunchFromRegistry(_Frame, frozen=True, kw_only=True, tag="launch_instance_from_registry"):
    corr_id: U32
    inferlet: str
    arguments: Arguments = []
    detached: bool = False


class LaunchServerInstance(_Frame, frozen=True, kw_only=True, tag="launch_server_instance"):
    corr_id: U32
    port: U32 | None = None
    program_hash: str | None = None
    inferlet: str | None = None
    arguments: Arguments = []


class AttachInstance(_Frame, frozen=True, kw_only=True, tag="attach_instance"):
    corr_id: U32
    instance_id: str


class ListInstances(_Frame, frozen=True, kw_only=True, tag="list_instances"):
    corr_id: U32


class SignalInstance(_Frame, frozen=True, kw_only=True, tag="signal_instance"):
    instance_id: str
    message: str


class UploadBlob(_Frame, frozen=True, kw_only=True, tag="upload_blob"):
    corr_id: U32
    instance_id: str
    blob_hash: str
    chunk_index: U32
    total_chunks: U32
    chunk_data: bytes


class TerminateInstance(_Frame, frozen=True, kw_only=True, tag="terminate_instance"):
    instance_id: str
    corr_id: U32 | None = None


class Ping(_Frame, frozen=True, kw_only=True, tag="ping"):
    corr_id: U32


ClientFrame: TypeAlias = (
    Identification
    | Signature
    | InternalAuthenticate
    | Query
    | UploadProgram
    | LaunchInstance
    | LaunchFromRegistry
    | LaunchServerInstance
    | AttachInstance
    | ListInstances
    | SignalInstance
    | UploadBlob
    | TerminateInstance
    | Ping
)


# What the server sends.


class Response(_Frame, frozen=True, kw_only=True, tag="response"):
    corr_id: int
    successful: bool
    result: str


class LaunchResult(_Frame, frozen=True, kw_only=True, tag="instance_launch_result"):
    corr_id: int
    successful: bool
    message: str
    """The instance's id, or why there is none."""


class AttachResult(_Frame, frozen=True, kw_only=True, tag="instance_attach_result"):
    corr_id: int
    successful: bool
    message: str


class InstanceEvent(_Frame, frozen=True, kw_only=True, tag="instance_event"):
    instance_id: str
    event: int
    """A `pie.ids.EventCode`."""
    message: str


class StreamingOutput(_Frame, frozen=True, kw_only=True, tag="streaming_output"):
    instance_id: str
    output: dict[str, str]
    """Text by its stream: one of "Stdout" and "Stderr"."""


class DownloadBlob(_Frame, frozen=True, kw_only=True, tag="download_blob"):
    corr_id: int = 0
    instance_id: str
    blob_hash: str
    chunk_index: int
    total_chunks: int
    chunk_data: bytes


class InstanceEntry(Struct, frozen=True, kw_only=True):
    """An instance in a listing."""

    id: str
    arguments: list[str]
    status: str
    username: str
    elapsed_secs: int
    kv_pages_used: int


class LiveInstances(_Frame, frozen=True, kw_only=True, tag="live_instances"):
    corr_id: int
    instances: list[InstanceEntry]


class ServerEvent(_Frame, frozen=True, kw_only=True, tag="server_event"):
    message: str


ServerFrame: TypeAlias = (
    Response
    | LaunchResult
    | AttachResult
    | InstanceEvent
    | StreamingOutput
    | DownloadBlob
    | LiveInstances
    | ServerEvent
)
