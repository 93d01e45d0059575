"""`inferlet:adapter/common`: LoRA adapters in slots of the model (contract X8)."""

from __future__ import annotations

import attrs

from pie.batch import AdapterCommand, AdapterSupport, DownloadAdapter, UploadAdapter
from pie.errors import GuestError
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import Pointer, ResourceKind
from pie.mailbox import Reply
from pie.messages import RunCommand

from .builder import PassBuilder
from .handles import Blob, Queue
from .pointers import check_held

adapter = HostInterface("inferlet:adapter/common")


@attrs.define(eq=False)
class DownloadResult:
    """An adapter on its way; taken once (contract X5)."""

    reply: Reply[bytes]
    taken: bool = False

    def get(self) -> Blob | None:
        if self.taken or not self.reply.ready():
            return None
        self.taken = True
        return Blob(self.reply.take())


def support_of(queue: Queue, call: str) -> AdapterSupport:
    """What the queue's model can do with adapters; traps if it takes none."""
    info = queue.service.info
    if info.adapters is None:
        raise GuestError(f"{call}: model {info.name!r} takes no adapters (X8)")
    return info.adapters


def submit(
    instance: Instance, queue: Queue, pointer: Pointer, command: AdapterCommand, call: str
) -> Reply[bytes]:
    """Put a command on a slot that the guest holds into the queue's order (Q1)."""
    check_held(instance.holdings(queue.service, ResourceKind.ADAPTER), [pointer], call)
    message = RunCommand(
        instance=instance.id,
        queue=queue.number,
        priority=queue.priority,
        kind=ResourceKind.ADAPTER,
        pointers=(pointer,),
        writes=not isinstance(command, DownloadAdapter),
        command=command,
    )
    queue.service.tell(message)
    return message.reply


@adapter.function("set-adapter")
def set_adapter(instance: Instance, builder: PassBuilder, adapter_ptr: Pointer) -> None:
    support_of(builder.queue, "set-adapter")
    builder.adapter = adapter_ptr


@adapter.function("upload-adapter")
def upload_adapter(
    instance: Instance, queue: Queue, adapter_ptr: Pointer, name: str, blob: Blob
) -> None:
    """The bytes are checked now; that they are in the slot is a matter of the queue."""
    support_of(queue, "upload-adapter").check(blob.data)
    submit(instance, queue, adapter_ptr, UploadAdapter(-1, blob.data), "upload-adapter")


@adapter.function("download-adapter")
def download_adapter(
    instance: Instance, queue: Queue, adapter_ptr: Pointer, name: str
) -> DownloadResult:
    support_of(queue, "download-adapter")
    reply = submit(instance, queue, adapter_ptr, DownloadAdapter(-1), "download-adapter")
    return DownloadResult(reply)
