"""What simulated machines can do, from their makers' figures.

Memory, bandwidth and rate are those of the data sheets (GB are 10^9 bytes, rates without
sparsity). What a data sheet does not tell is an assumption of ours, the same for all accelerators:
0.8 of the bandwidth and 0.6 of the rate are reached, a tenth of the memory goes to workspace, and
a step costs half a millisecond beside its arithmetic (launches, the upload of a batch, the way of
its tokens back). To assume something else: `attrs.evolve(H100, launch_seconds=0.001)`.
"""

from __future__ import annotations

import attrs

from pie.errors import UsageError

from .shapes import ModelShape

GB = 1e9


@attrs.frozen(kw_only=True)
class Machine:
    """One accelerator."""

    name: str
    memory_bytes: float
    bandwidth: float
    """Bytes per second between memory and processor, reading and writing together."""
    flops: float
    """Operations per second of dense bf16 matrix products."""
    link: float
    """Bytes per second to host memory, one way: what moving pages out and back is bound by."""
    launch_seconds: float = 0.0005
    bandwidth_share: float = 0.8
    flops_share: float = 0.6
    workspace_share: float = 0.1

    def pages(self, shape: ModelShape, page_size: int = 16) -> int:
        """How many KV pages fit beside the weights; UsageError if not one does."""
        usable = self.memory_bytes * (1 - self.workspace_share)
        count = int((usable - shape.weight_bytes) // (page_size * shape.kv_bytes_per_token))
        if count < 1:
            raise UsageError(
                f"{shape.name} does not fit {self.name}: its weights take "
                f"{shape.weight_bytes / GB:.1f} GB, and {usable / GB:.1f} of "
                f"{self.memory_bytes / GB:.0f} GB are left by workspace"
            )
        return count

    def seconds(self, moved: float, computed: float) -> float:
        """The roofline: what moves `moved` bytes and computes `computed` operations at once."""
        return max(
            moved / (self.bandwidth * self.bandwidth_share),
            computed / (self.flops * self.flops_share),
        )


H100 = Machine(
    name="H100",
    memory_bytes=80 * GB,
    bandwidth=3350 * GB,
    flops=989.5e12,
    link=64 * GB,
)
"""NVIDIA H100 SXM5 80 GB: data sheet (1,979 teraFLOPS with sparsity, PCIe 5.0 x16)."""

H200 = Machine(
    name="H200",
    memory_bytes=141 * GB,
    bandwidth=4800 * GB,
    flops=989.5e12,
    link=64 * GB,
)
"""NVIDIA H200 SXM 141 GB: data sheet (1,979 teraFLOPS with sparsity, PCIe 5.0 x16)."""

A100 = Machine(
    name="A100",
    memory_bytes=80 * GB,
    bandwidth=2039 * GB,
    flops=312e12,
    link=32 * GB,
)
"""NVIDIA A100 SXM4 80 GB: data sheet (PCIe 4.0 x16)."""

L4 = Machine(
    name="L4",
    memory_bytes=24 * GB,
    bandwidth=300 * GB,
    flops=121e12,
    link=32 * GB,
)
"""NVIDIA L4: data sheet (242 teraFLOPS with sparsity, PCIe 4.0 x16)."""

LAPTOP = Machine(
    name="laptop",
    memory_bytes=16 * GB,
    bandwidth=89.6 * GB,
    flops=0.768e12,
    link=44.8 * GB,
    launch_seconds=0.0001,
    workspace_share=0.5,
)
"""No product: two channels of DDR5-5600 (2 x 8 bytes x 5.6e9 a second) and 8 cores at 3 GHz with
two 8-lane float32 multiply-adds a cycle. Half of the memory is left to everything else; pages move
within the same memory, which is read and written."""
