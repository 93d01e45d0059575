"""The configuration, frozen, read once at the edge of the program."""

from __future__ import annotations

import attrs

MIB = 1 << 20


@attrs.frozen(kw_only=True)
class Limits:
    """What one guest may use; each limit says what happens at it."""

    memory_bytes: int = 512 * MIB
    """Of one linear memory: growth beyond it fails inside the guest. CPython guests start near
    30 MiB. Ordinary components have one memory; none may have more than four."""
    cpu_seconds: float | None = None
    """Processor time of a component: more traps. None: any, since spinning ones are preempted.
    A native guest's is not told apart from the engine's."""
    max_pages: int | None = None
    """KV pages of one model that the guest holds: more traps. None: all there are."""
    max_queues: int = 65_536
    """Command queues made: one more traps. Published programs make a hundred in a dozen tokens;
    the scheduler remembers each until the instance ends."""
    max_handles: int = 100_000
    """Live resource handles: one more traps. JavaScript guests never drop theirs. Of pointers,
    too, no more can be imported, or exported in one entry."""
    max_passes_in_flight: int = 256
    """Submitted and unfinished passes: `execute` waits beyond it."""
    max_pass_tokens: int | None = None
    """Inputs of one pass: more traps. None: the model's context length."""
    max_pass_outputs: int = 8192
    """Output slots of one pass: more trap. Each costs the model a walk over its vocabulary."""
    max_result_entries: int = 1 << 20
    """Tokens and distribution entries asked for and not taken: more trap."""
    max_dist_size: int | None = None
    """Entries asked of one distribution: more traps. None: the model's vocabulary."""
    max_message_bytes: int = 1 * MIB
    """A message, broadcast or return value: a longer one traps."""
    max_blob_bytes: int = 64 * MIB
    """All blobs that the guest has made and has: one that goes beyond it traps."""
    max_key_bytes: int = 1024
    """A key of the key-value store, an export's name, a topic: a longer one traps."""
    max_value_bytes: int = 1 * MIB
    """A value of the key-value store: a longer one traps."""
    max_subscriptions: int = 1024
    """Live subscriptions: one more traps."""


@attrs.frozen(kw_only=True)
class Scheduling:
    """How batches are formed."""

    step_tokens: int = attrs.field(default=512, validator=attrs.validators.ge(1))
    """Rows of one step: a longer pass is split over steps, invisibly to the guest."""
    prefill_slowdown: float = attrs.field(default=1.8, validator=attrs.validators.gt(1))
    """A piece of a long pass may make a step take this many times what its short ones alone would:
    the lower, the more even are the decoding guests' tokens. Infinity: as many rows as fit."""
    host_pages: int | None = None
    """KV pages that may be in host memory under contention. None: as many as the model has."""
    dispatch: str = "gather"
    """The rule that starts batches. The others ("eager", "fixed-size", "fixed-wait", "adaptive")
    are there to be compared with (docs/scheduling.md)."""
    ageing_seconds: float = 2.0
    """Waiting this long lifts a pass by one priority level, so that low ones never starve."""


@attrs.frozen(kw_only=True)
class EngineConfig:
    """Everything an engine needs to know beside its models and programs."""

    seed: int = 0
    """Instances launched without a seed derive theirs from this one."""
    max_instances: int = 4096
    """Instances at once: a launch beyond it is refused."""
    max_instances_per_user: int | None = None
    """Of one user: a launch beyond it is refused. None: as many as there may be."""
    max_pages_per_user: int | None = None
    """KV pages of one model that all instances of a user have or wait for, and those of its
    exports, shared ones each time: an allocation, import or export beyond it traps. None: any."""
    max_store_bytes: int = 256 * MIB
    """Keys and values of one user in the key-value store: setting one beyond it traps."""
    limits: Limits = attrs.field(factory=Limits)
    scheduling: Scheduling = attrs.field(factory=Scheduling)
    state_path: str | None = None
    """Folder for what outlives the engine: the users' key-value pairs and exported KV pages, made
    if need be and for one engine at a time. None: both stay in memory and end with the engine."""
