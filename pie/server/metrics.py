"""What a server tells Prometheus; most of it is read when Prometheus asks.

metrics = Metrics()
async with open_engine(devices, observe=metrics.model, guests=metrics) as engine:
    ...
    text = await metrics.render(engine, ServerState(connections=3))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from pie.batch import ModelInfo
from pie.engine import Engine
from pie.ids import InstanceId
from pie.messages import Event, LaunchContext

from .catalogue import ENTRIES
from .counters import ServerCounters, ServerState
from .families import Snapshot
from .lateness import Lateness
from .model_metrics import ModelMetrics

_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest


@attrs.define(eq=False)
class _Shown:
    """Gives the registry what has been read last."""

    snapshot: Snapshot | None = None

    def collect(self) -> Iterator[Metric]:
        if self.snapshot is not None:
            for entry in ENTRIES:
                yield entry.family(self.snapshot)


class Metrics:
    """Of one server, with a registry of its own. Observes the engine's instances."""

    def __init__(self) -> None:
        self.counters = ServerCounters()
        self.lateness = Lateness()
        self.models: dict[str, ModelMetrics] = {}
        self._shown = _Shown()
        self.registry = CollectorRegistry()
        self.registry.register(self._shown)
        ProcessCollector(registry=self.registry)

    def model(self, info: ModelInfo) -> ModelMetrics:
        """Of this model: observes its scheduler."""
        return self.models.setdefault(info.name, ModelMetrics())

    async def render(self, engine: Engine, state: ServerState, *, accept: str = "") -> bytes:
        """All metrics as text, of the format of `content_type`. Closed if the engine has ended."""
        stats = await engine.stats()
        self._shown.snapshot = Snapshot(
            stats=stats,
            models=self.models,
            counters=self.counters,
            lateness=self.lateness,
            state=state,
        )
        encode, _ = _format(accept)
        return encode(self.registry)

    @staticmethod
    def content_type(accept: str) -> str:
        """What `render` gives a client that sends this in its Accept header."""
        return _format(accept)[1]

    # -------------------------------------------------- as an observer of instances

    def launched(self, context: LaunchContext, program: str, /) -> None:
        self.counters.launches += 1

    def moving(self, instance: InstanceId, moves: bool, /) -> None:
        pass

    def gone(self, instance: InstanceId, last: Event, /) -> None:
        self.counters.ended[last.code] += 1


def _format(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    if "application/openmetrics-text" in accept:
        return _openmetrics, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
