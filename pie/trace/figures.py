"""What a run was like in figures: throughput, latency, fairness, batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np

from .reading import BatchFacts, Record, Request


@attrs.frozen
class Service:
    """A pass that was answered well; times in seconds."""

    op: int
    instance: int
    user: str
    tokens: int
    """Inputs."""
    outputs: int
    """Tokens sampled and distributions given."""
    submitted: float
    answered: float

    @property
    def latency(self) -> float:
        return self.answered - self.submitted


@attrs.frozen(kw_only=True)
class Figures:
    """A run in figures."""

    seconds: float
    """From the first launch to the last answer."""
    passes: int
    tokens_per_second: float
    """Outputs per second of that time."""
    inputs_per_second: float
    token_p50_ms: float
    """Submission to answer, over the outputs."""
    token_p99_ms: float
    pass_p50_ms: float
    """The same over the passes, those without outputs too."""
    pass_p99_ms: float
    fairness_instances: float
    """Jain's index of the inputs per second that each got while it had a pass unanswered."""
    fairness_users: float
    batches: int
    rows_per_batch: float
    passes_per_batch: float
    busy: float
    """Part of the time in which a batch was running."""
    failed: int
    """Passes that failed or were dropped."""


def figures(services: Sequence[Service], batches: Sequence[BatchFacts], failed: int) -> Figures:
    """Of at least one service; `batches` of one model, or of several that work side by side."""
    seconds = max(service.answered for service in services)
    outputs = np.array([service.outputs for service in services], dtype=np.float64)
    latencies = np.array([service.latency for service in services])
    inputs = sum(service.tokens for service in services)
    per = max(seconds, 1e-9)
    return Figures(
        seconds=seconds,
        passes=len(services),
        tokens_per_second=float(outputs.sum()) / per,
        inputs_per_second=inputs / per,
        token_p50_ms=1e3 * _percentile(latencies, outputs, 0.5),
        token_p99_ms=1e3 * _percentile(latencies, outputs, 0.99),
        pass_p50_ms=1e3 * _percentile(latencies, np.ones_like(latencies), 0.5),
        pass_p99_ms=1e3 * _percentile(latencies, np.ones_like(latencies), 0.99),
        fairness_instances=jain(_rates((s.instance, s) for s in services)),
        fairness_users=jain(_rates((s.user, s) for s in services)),
        batches=len(batches),
        rows_per_batch=sum(batch.rows for batch in batches) / max(1, len(batches)),
        passes_per_batch=sum(batch.passes for batch in batches) / max(1, len(batches)),
        busy=sum(batch.seconds for batch in batches) / per,
        failed=failed,
    )


def recorded(record: Record) -> tuple[list[Service], int]:
    """The passes of a record that were answered well, and how many were not."""
    users = {facts.instance: facts.user for facts in record.instances}
    first = min(facts.launched for facts in record.instances)
    passes = [request for request in record.requests if request.name == "pass"]
    services: list[Service] = []
    failed = 0
    for request in passes:
        wrong = "error" in request.args
        failed += wrong
        times = request.times[: len(request.times) - wrong] if request.is_decoding else ()
        if not (wrong or request.is_decoding):
            times = (request.ended,)
        services += served(request, users[request.instance], request.began, times, first)
    return services, failed


def served(
    request: Request, user: str, began: float, times: Sequence[float], start: float
) -> list[Service]:
    """The passes of a request that ended well at `times`; seconds since `start` in the result."""
    found: list[Service] = []
    tokens, outputs = request.args["tokens"], request.args["sampled"] + request.args["ranked"]
    for time in times:
        found.append(
            Service(
                request.op, request.instance, user, tokens, outputs, began - start, time - start
            )
        )
        began, tokens = time, 1  # each further pass of a decoding has one input
    return found


def jain(rates: Sequence[float]) -> float:
    """Jain's fairness index, (sum x)^2 / (n sum x^2): 1 if all get the same, 1/n if one gets all.

    R. Jain, D. Chiu, W. Hawe: A quantitative measure of fairness, DEC-TR-301 (1984).
    """
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


def _rates(served: Iterable[tuple[object, Service]]) -> list[float]:
    """Inputs per second of each key, while it had a pass unanswered; by first appearance."""
    mine: dict[object, list[Service]] = {}
    for key, service in served:
        mine.setdefault(key, []).append(service)
    rates = []
    for services in mine.values():
        spent = _covered((s.submitted, s.answered) for s in services)
        if spent > 0:
            rates.append(sum(service.tokens for service in services) / spent)
    return rates


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of time spans."""
    total, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


def _percentile(values: np.ndarray, weights: np.ndarray, part: float) -> float:
    """The smallest value that at least `part` of the weight is not above; 0 of no weight."""
    if not weights.sum():
        return 0.0
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    at = int(np.searchsorted(cumulated, part * cumulated[-1] * (1 - 1e-12)))
    return float(values[order][at])
