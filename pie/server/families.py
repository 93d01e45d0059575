"""Metrics whose values are read at a scrape: kinds, labels, and what they are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import TypeAlias

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pie.messages import ServiceStats

from .buckets import Buckets
from .counters import ServerCounters, ServerState
from .lateness import Lateness
from .model_metrics import ModelMetrics


@attrs.frozen(kw_only=True)
class Snapshot:
    """A server at one moment."""

    stats: Mapping[str, ServiceStats]
    models: Mapping[str, ModelMetrics]
    """Those of `stats`, by the same names."""
    counters: ServerCounters
    lateness: Lateness
    state: ServerState


Reading: TypeAlias = tuple[tuple[str, ...], float | Buckets]
"""Values of the labels, and the value."""


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@attrs.frozen
class Entry:
    """One metric."""

    name: str
    kind: Kind
    help: str
    read: Callable[[Snapshot], Iterator[Reading]]
    labels: tuple[str, ...] = ()

    def family(self, snapshot: Snapshot) -> Metric:
        """It, with its values."""
        readings = self.read(snapshot)
        if self.kind is Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, value in readings:
                assert isinstance(value, Buckets)
                histogram.add_metric(labels, value.cumulative(), value.total)
            return histogram
        make = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        for labels, value in readings:
            assert not isinstance(value, Buckets)
            family.add_metric(labels, value)
        return family


def of_service(kind: Kind, name: str, help: str, read: Callable[[ServiceStats], float]) -> Entry:
    def values(snapshot: Snapshot) -> Iterator[Reading]:
        for model, stats in snapshot.stats.items():
            yield (model,), read(stats)

    return Entry(name, kind, help, values, ("model",))


def of_pool(name: str, help: str, read: Callable[[ServiceStats], tuple[int, int]]) -> Entry:
    """A gauge by state, from the free and all pages of a pool."""

    def values(snapshot: Snapshot) -> Iterator[Reading]:
        for model, stats in snapshot.stats.items():
            free, capacity = read(stats)
            yield (model, "free"), free
            yield (model, "used"), capacity - free

    return Entry(name, Kind.GAUGE, help, values, ("model", "state"))


def of_model(
    kind: Kind, name: str, help: str, read: Callable[[ModelMetrics], float | Buckets]
) -> Entry:
    def values(snapshot: Snapshot) -> Iterator[Reading]:
        for model in snapshot.stats:
            yield (model,), read(snapshot.models[model])

    return Entry(name, kind, help, values, ("model",))


def of_server(
    kind: Kind, name: str, help: str, read: Callable[[ServerCounters], float | Buckets]
) -> Entry:
    return Entry(name, kind, help, lambda snapshot: iter([((), read(snapshot.counters))]))


def of_state(name: str, help: str, read: Callable[[ServerState], float]) -> Entry:
    return Entry(name, Kind.GAUGE, help, lambda snapshot: iter([((), read(snapshot.state))]))
