"""What a server's pages say, and how fast it goes by two looks at them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from pie.server.listing import InstanceRow

Labels: TypeAlias = tuple[tuple[str, str], ...]


@attrs.frozen
class ModelHealth:
    """A part of it."""

    state: str


@attrs.frozen
class HealthPage:
    """What is used of `/healthz`."""

    healthy: bool
    reasons: list[str]
    models: dict[str, ModelHealth]


@attrs.frozen
class ListingPage:
    """`/v1/instances`."""

    instances: list[InstanceRow]


@attrs.frozen
class Scrape:
    """A server at one moment."""

    at: float
    """Seconds, on any clock that goes on evenly."""
    health: HealthPage
    instances: Sequence[InstanceRow]
    _samples: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def of(cls, at: float, *, metrics: str, health: bytes, listing: bytes) -> Scrape:
        """From the three pages; ValueError if one is not what a server gives."""
        try:
            page = msgspec.json.decode(health, type=HealthPage)
            instances = msgspec.json.decode(listing, type=ListingPage).instances
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None
        samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at, page, instances, samples)

    def value(self, name: str, **labels: str) -> float:
        """Of a metric; 0 if it is not there."""
        return self._samples.get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    def sum(self, name: str) -> float:
        """Over all its labels."""
        return sum(self._samples.get(name, {}).values())

    def label(self, name: str, label: str) -> list[str]:
        """The values that a label of a metric has, in order."""
        return list(dict.fromkeys(dict(labels)[label] for labels in self._samples.get(name, {})))

    def buckets(self, name: str, **labels: str) -> Iterator[tuple[float, float]]:
        """(bound, how many values were at most that) of a histogram, in order."""
        wanted = set(labels.items())
        for found, count in self._samples.get(f"{name}_bucket", {}).items():
            if wanted <= set(found):
                yield float(dict(found)["le"]), count


@attrs.frozen
class Span:
    """What happened from one look at a server to another."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at

    def grown(self, name: str, **labels: str) -> float | None:
        """By how much a counter has grown; None if the server has begun anew."""
        grown = self.after.value(name, **labels) - self.before.value(name, **labels)
        return grown if grown >= 0 else None

    def rate(self, name: str, **labels: str) -> float | None:
        """By how much per second."""
        grown = self.grown(name, **labels)
        return None if grown is None or self.seconds <= 0 else grown / self.seconds

    def rate_of_all(self, name: str) -> float | None:
        """Likewise, over all its labels."""
        grown = self.after.sum(name) - self.before.sum(name)
        return None if grown < 0 or self.seconds <= 0 else grown / self.seconds

    def mean(self, name: str, **labels: str) -> float | None:
        """Of the values that a histogram got; None if there are none."""
        count, total = self.grown(f"{name}_count", **labels), self.grown(f"{name}_sum", **labels)
        return total / count if count and total is not None else None

    def percentile(self, part: float, name: str, **labels: str) -> float | None:
        """What that part of the values are at most, as well as the buckets tell."""
        before = dict(self.before.buckets(name, **labels))
        counts = [
            (bound, count - before.get(bound, 0.0))
            for bound, count in self.after.buckets(name, **labels)
        ]
        if any(count < 0 for _, count in counts):
            return None
        return percentile(part, counts)


def percentile(part: float, counts: Sequence[tuple[float, float]]) -> float | None:
    """Of a histogram, between the bounds of a bucket in proportion; None if it is empty.

    Of values beyond all bounds the last bound is all that is known.
    """
    if not counts or not counts[-1][1]:
        return None
    wanted = part * counts[-1][1]
    lower = below = 0.0
    for bound, count in counts:
        if count >= wanted and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
