"""`inferlet:image/image`: images as inputs, for models that can see (contract X8)."""

from __future__ import annotations

from typing import NoReturn

from pie.errors import GuestError
from pie.guest.host import HostInterface
from pie.guest.instance import Instance
from pie.ids import Pointer

from .handles import Queue

image = HostInterface("inferlet:image/image")


def _refuse(queue: Queue, call: str) -> NoReturn:
    """No model family of this engine has the trait; a guest can ask before it calls."""
    raise GuestError(
        f"{call}: model {queue.service.info.name!r} does not have the trait input_image (X8)"
    )


@image.function("embed-image")
def embed_image(
    instance: Instance,
    queue: Queue,
    emb_ptrs: list[Pointer],
    image_blob: bytes,
    position_offset: int,
) -> None:
    _refuse(queue, "embed-image")


@image.function("calculate-embed-size")
def calculate_embed_size(
    instance: Instance, queue: Queue, image_width: int, image_height: int
) -> int:
    _refuse(queue, "calculate-embed-size")
