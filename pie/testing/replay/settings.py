"""Under what a record is run again: machine, policy, seed, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from pie.actors.executor import Device
from pie.batch import Batch, ModelInfo
from pie.errors import UsageError
from pie.trace.reading import BatchFacts, ModelFacts, Record

from .. import machines, shapes
from ..gpu import SimulatedGpu
from ..machines import Machine
from ..shapes import ModelShape
from ..timing import RooflineTiming, Timing
from .blank import BlankRunner
from .running import Replayed, replay

MACHINES = {value.name: value for value in vars(machines).values() if isinstance(value, Machine)}
SHAPES = {value.name: value for value in vars(shapes).values() if isinstance(value, ModelShape)}
DEFAULT_SHAPE = shapes.LLAMA_3_8B.name


@attrs.frozen(kw_only=True)
class Setting:
    """What is different from the record. None: as recorded."""

    machine: str | None = None
    """None: the machine of the record, as far as `fitted` knows it."""
    shape: str = DEFAULT_SHAPE
    """The model on `machine`."""
    policy: str | None = None
    step_tokens: int | None = None
    host_pages: int | None = None
    pages: int | None = None
    seed: int = 0
    """Of the order of tasks, and of `jitter`."""
    jitter: float = 0.0

    def __str__(self) -> str:
        """Its differences, for a table's head."""
        changed = [
            str(value) if field.name in ("machine", "policy") else f"{field.name} {value}"
            for field in attrs.fields(Setting)
            if (value := getattr(self, field.name)) != field.default
        ]
        return ", ".join(changed) or "as recorded"


@attrs.frozen
class FittedTiming:
    """As the batches of a record took, by their passes, further rows and KV slots; moves at once.

    The same form as the scheduler's own prediction (`pie/actors/prediction.py`).
    """

    step: float
    first_row: float
    """Of each pass."""
    row: float
    """Each further one."""
    slot: float
    error: float
    """Mean deviation from the record, as a part of the mean duration."""

    def seconds(self, batch: Batch, /) -> float:
        further = batch.rows - batch.passes
        rows = self.first_row * batch.passes + self.row * further
        return self.step + rows + self.slot * int(batch.lengths.sum())

    def move_seconds(self, pages: int, /) -> float:
        return 0.0


def fitted(batches: Sequence[BatchFacts]) -> FittedTiming:
    """Least squares over the batches of one model, no coefficient below 0.

    UsageError if the record has none.
    """
    ran = [batch for batch in batches if not batch.lost]
    if not ran:
        raise UsageError("the trace has no batch to take step times from: name a machine")
    sizes = np.array([(1.0, b.passes, b.rows - b.passes, b.kv_slots) for b in ran])
    seconds = np.array([batch.seconds for batch in ran])
    scale = np.maximum(sizes.max(axis=0), 1.0)
    used = [0, 1, 2, 3]
    while True:
        solved = np.linalg.lstsq(sizes[:, used] / scale[used], seconds, rcond=1e-9)[0]
        below = [column for column, value in zip(used, solved, strict=True) if value < 0]
        if not below:
            break
        used = [column for column in used if column not in below]
    found = np.zeros(4)
    found[used] = solved / scale[used]
    deviation = np.abs(sizes @ found - seconds).mean() / max(seconds.mean(), 1e-12)
    step, first_row, row, slot = found.tolist()
    return FittedTiming(step, first_row, row, slot, float(deviation))


def replay_under(record: Record, setting: Setting) -> Replayed:
    """`record` once more. UsageError names an unknown machine, shape or setting."""
    names = {"dispatch": setting.policy, "step_tokens": setting.step_tokens}
    names["host_pages"] = setting.host_pages
    changes: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    for name, value in (("step_tokens", setting.step_tokens), ("pages", setting.pages)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: it has to be at least 1")
    if setting.jitter < 0 or (setting.host_pages or 0) < 0:
        raise UsageError("jitter and host pages cannot be below 0")
    shape = _known(setting.shape, SHAPES, "model shape")
    machine = None if setting.machine is None else _known(setting.machine, MACHINES, "machine")

    def device(facts: ModelFacts, info: ModelInfo) -> Device:
        timing: Timing
        if machine is None:
            timing = fitted([b for b in record.batches if b.model == facts.model])
        else:
            timing = RooflineTiming(machine, shape, facts.page_size)
        runner = BlankRunner(info)
        return SimulatedGpu(runner, timing, seed=setting.seed, jitter=setting.jitter)

    return replay(record, device, scheduling=changes, pages=setting.pages, seed=setting.seed)


def _known(name: str, among: dict[str, Any], what: str) -> Any:
    for known, value in among.items():
        if known.lower() == name.lower():
            return value
    raise UsageError(f"unknown {what} {name!r}: there are {', '.join(among)}")
