"""What each request of a client does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import trio

from pie.errors import PieError, UsageError
from pie.programs import WasmProgram

from .counters import Refusal
from .frames import (
    AttachInstance,
    AttachResult,
    ClientFrame,
    InstanceEntry,
    LaunchFromRegistry,
    LaunchInstance,
    LaunchResult,
    ListInstances,
    LiveInstances,
    Ping,
    Query,
    Response,
    ServerFrame,
    SignalInstance,
    TerminateInstance,
    UploadBlob,
    UploadProgram,
)
from .instances import Hosted
from .limits import UserLimits
from .names import INTERNAL
from .server import Server
from .uploads import Finished


@attrs.frozen(eq=False)
class Client:
    """Who asks, once that is known."""

    server: Server
    user: str
    limits: UserLimits
    storing: dict[int, trio.Event] = attrs.field(factory=dict)
    """Uploaded programs that are being kept, by corr_id: launches wait for them."""


@attrs.frozen
class Follow:
    """Send the reply, and from then on what the instance says."""

    hosted: Hosted
    reply: ServerFrame


Outcome: TypeAlias = ServerFrame | Follow | None
Handle: TypeAlias = Callable[[Client, Any], Awaitable[Outcome]]


async def handle(client: Client, frame: ClientFrame) -> Outcome:
    """Do what `frame` asks. A PieError says why that is not possible."""
    match frame:
        case Ping(corr_id=corr_id):
            return Response(corr_id=corr_id, successful=True, result="Pong")
        case Query(corr_id=corr_id):
            return Response(corr_id=corr_id, successful=True, result=await _query(client, frame))
        case LaunchInstance() | LaunchFromRegistry():
            return await _launch(client, frame)
        case AttachInstance(corr_id=corr_id, instance_id=uuid):
            hosted = client.server.instances.find(client.user, uuid)
            return Follow(hosted, AttachResult(corr_id=corr_id, successful=True, message=uuid))
        case ListInstances(corr_id=corr_id):
            return LiveInstances(corr_id=corr_id, instances=await _entries(client))
        case SignalInstance(instance_id=uuid, message=text):
            hosted = client.server.instances.find(client.user, uuid)
            await client.server.engine.send(hosted.instance, text)
            return None
        case TerminateInstance(corr_id=corr_id, instance_id=uuid):
            hosted = client.server.instances.find(client.user, uuid)
            await client.server.terminate(hosted, "terminated by its client")
            if corr_id is None:
                return None
            return Response(corr_id=corr_id, successful=True, result="Instance terminated")
        case _:
            raise UsageError("inferlets that serve HTTP are not supported by this server")


async def store(client: Client, frame: UploadProgram, *, upload: Finished) -> ServerFrame:
    """Keep an uploaded program."""
    server, counters = client.server, client.server.metrics.counters
    try:
        with server.uploading.holding(upload.size):
            data = await server.offload(upload.data)
            await server.programs.upload(client.user, data, upload.key, frame.manifest)
    except PieError:
        server.refused(Refusal.UPLOAD)
        raise
    finally:
        client.storing.pop(frame.corr_id).set()
    counters.uploads += 1
    counters.uploaded_bytes += upload.size
    return Response(corr_id=frame.corr_id, successful=True, result=frame.program_hash)


async def deliver(client: Client, frame: UploadBlob, *, upload: Finished) -> ServerFrame:
    """Give an uploaded blob to its instance."""
    hosted = client.server.instances.find(client.user, frame.instance_id)
    data = await client.server.offload(upload.data)
    await client.server.engine.send(hosted.instance, data)
    return Response(corr_id=frame.corr_id, successful=True, result="Blob sent to instance")


async def _launch(client: Client, frame: LaunchInstance | LaunchFromRegistry) -> Outcome:
    server, began = client.server, trio.current_time()
    try:
        client.limits.launch(began)
    except UsageError:
        server.refused(Refusal.LAUNCHES_PER_MINUTE)
        raise
    for stored in list(client.storing.values()):
        await stored.wait()  # sent before this launch, so it may be what is to be launched
    program = await _program(client, frame)
    name = frame.inferlet or program.name
    hosted = await server.launch(client.user, program, name, frame.arguments)
    server.metrics.counters.launch_seconds.add(trio.current_time() - began)
    reply = LaunchResult(corr_id=frame.corr_id, successful=True, message=hosted.uuid)
    return reply if frame.detached else Follow(hosted, reply)


async def _program(client: Client, frame: LaunchInstance | LaunchFromRegistry) -> WasmProgram:
    programs = client.server.programs
    if isinstance(frame, LaunchInstance) and frame.program_hash is not None:
        return await programs.by_hash(client.user, frame.program_hash)
    assert frame.inferlet is not None
    return await programs.by_name(client.user, frame.inferlet)


async def _entries(client: Client) -> list[InstanceEntry]:
    """The user's instances, or all for the internal one; oldest first."""
    server = client.server
    pages, now = await server.engine.pages_of(), trio.current_time()
    return [
        InstanceEntry(
            id=hosted.uuid,
            arguments=list(hosted.arguments),
            status=hosted.status,
            username=hosted.user,
            elapsed_secs=int(now - hosted.launched_at),
            kv_pages_used=pages.get(hosted.instance, 0),
        )
        for hosted in server.instances.of(None if client.user == INTERNAL else client.user)
    ]


async def _query(client: Client, frame: Query) -> str:
    match frame.subject:
        case "program_exists":
            found = await client.server.programs.exists(client.user, frame.record)
            return "true" if found else "false"
        case "model_status":
            stats = await client.server.engine.stats()
            return json.dumps({name: attrs.asdict(figures) for name, figures in stats.items()})
        case "backend_stats":
            return _table(await client.server.engine.stats())
    raise UsageError(
        f"unknown query subject {frame.subject[:64]!r}; known are: program_exists, model_status, "
        "backend_stats"
    )


def _table(stats: Any) -> str:
    """One line per figure: its name in 40 columns, a bar, its value; sorted by name."""
    figures = {
        f"{name}.{key}": value
        for name, service in stats.items()
        for key, value in attrs.asdict(service).items()
    }
    return "\n".join(f"{key:<40} | {figures[key]}" for key in sorted(figures))
