"""Whether a server makes progress. A process that answers and does nothing is not healthy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from .metrics import Metrics
from .model_metrics import ModelMetrics


class State(StrEnum):
    """Of a model; the last two are unhealthy."""

    IDLE = "idle"
    BUSY = "busy"
    STALLED = "stalled"
    """A step, or a pass that could be in one, has waited for too long."""
    FAILING = "failing"
    """The last few steps were lost."""


@attrs.frozen(kw_only=True)
class Bounds:
    """What is too much."""

    step_seconds: float = 120.0
    """For a step, and for a pass that could run while no step begins."""
    failures: int = 3
    """Steps lost one after the other."""
    late_seconds: float = 5.0
    """For the loop to turn to what is due."""


@attrs.frozen(kw_only=True)
class ModelSnapshot:
    """One model at one moment; all times in seconds before it."""

    name: str
    queued: int = 0
    """Passes and commands that are not finished."""
    step_seconds: float | None = None
    """How long the current step has been running."""
    progress_seconds: float = 0.0
    """Since a step last began or ended."""
    ready_seconds: float | None = None
    """How long the oldest of those passes that could be in a step has been there."""
    overdue: bool = False
    """Whether the device itself has given up the current step."""
    failures: int = 0
    consecutive_failures: int = 0
    last_failure: str | None = None

    def state(self, bounds: Bounds) -> State:
        """What it is doing."""
        if self.overdue or (self.step_seconds or 0.0) > bounds.step_seconds:
            return State.STALLED
        if self.step_seconds is None and self._unserved_seconds > bounds.step_seconds:
            return State.STALLED
        if self.consecutive_failures >= bounds.failures:
            return State.FAILING
        return State.IDLE if self.step_seconds is None and not self.queued else State.BUSY

    @property
    def _unserved_seconds(self) -> float:
        """How long there has been a pass to run, and nothing has been done."""
        return min(self.progress_seconds, self.ready_seconds or 0.0)


@attrs.frozen(kw_only=True)
class Snapshot:
    """A server at one moment."""

    models: Sequence[ModelSnapshot] = ()
    draining: bool = False
    late_seconds: float = 0.0
    """The latest that the loop has been of late."""


@attrs.frozen
class Report:
    """For `/healthz`: HTTP 200 if healthy, else 503, with `body` as JSON."""

    healthy: bool
    body: Mapping[str, Any]


def judge(snapshot: Snapshot, bounds: Bounds) -> Report:
    """Healthy unless a model is stalled or failing, the loop is late, or the server is draining."""
    reasons = ["draining: nothing new is taken"] if snapshot.draining else []
    if snapshot.late_seconds > bounds.late_seconds:
        reasons.append(f"the loop was {snapshot.late_seconds:.1f} s late")
    models = {}
    for model in snapshot.models:
        state = model.state(bounds)
        models[model.name] = {
            "state": state.value,
            "queued": model.queued,
            "step_seconds": _rounded(model.step_seconds),
            "progress_seconds": _rounded(model.progress_seconds),
            "failures": model.failures,
            "consecutive_failures": model.consecutive_failures,
            "last_failure": model.last_failure,
        }
        if state in (State.STALLED, State.FAILING):
            reasons.append(f"model {model.name} is {state.value}{_why(model, state)}")
    body = {
        "healthy": not reasons,
        "reasons": reasons,
        "draining": snapshot.draining,
        "loop_late_seconds": _rounded(snapshot.late_seconds),
        "models": models,
    }
    return Report(not reasons, body)


def _why(model: ModelSnapshot, state: State) -> str:
    if state is State.FAILING:
        return f": {model.consecutive_failures} steps were lost, the last: {model.last_failure}"
    if model.step_seconds is not None:
        return f": a step has been running for {model.step_seconds:.1f} s"
    return f": {model.queued} passes wait and nothing has run for {model.progress_seconds:.1f} s"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


@attrs.frozen
class Health:
    """Of a server whose metrics observe its models and have their devices."""

    metrics: Metrics
    bounds: Bounds = attrs.field(factory=Bounds)

    def report(self, now: float, *, draining: bool = False) -> Report:
        """What it is like `now`, on Trio's clock."""
        return judge(self.snapshot(now, draining=draining), self.bounds)

    def snapshot(self, now: float, *, draining: bool = False) -> Snapshot:
        return Snapshot(
            models=[look(name, model, now) for name, model in self.metrics.models.items()],
            draining=draining,
            late_seconds=self.metrics.lateness.worst,
        )


def look(name: str, model: ModelMetrics, now: float) -> ModelSnapshot:
    """What a model is doing."""
    pending = model.pending()
    ready = [work.submitted_at for work in pending if work.ready]
    device = model.device
    since = None if device is None else device.running_since
    return ModelSnapshot(
        name=name,
        queued=len(pending),
        step_seconds=None if since is None else now - since,
        progress_seconds=now - model.progressed_at,
        ready_seconds=now - min(ready) if ready else None,
        overdue=device is not None and device.stalled(now),
        failures=0 if device is None else device.failures,
        consecutive_failures=0 if device is None else device.consecutive_failures,
        last_failure=None if device is None else device.last_failure or None,
    )
