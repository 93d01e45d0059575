"""Every metric of a server, and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pie import __version__
from pie.ids import EventCode

from .counters import Refusal
from .families import (
    Entry,
    Kind,
    Reading,
    Snapshot,
    of_model,
    of_pool,
    of_server,
    of_service,
    of_state,
)
from .instances import Status
from .model_metrics import ModelMetrics


def _failures(model: ModelMetrics) -> int:
    return 0 if model.device is None else model.device.failures


def _instances(snapshot: Snapshot) -> Iterator[Reading]:
    for status in Status:
        yield (status.lower(),), snapshot.state.instances.get(status, 0)


def _endings(snapshot: Snapshot) -> Iterator[Reading]:
    for code in EventCode:
        if code is not EventCode.MESSAGE:
            yield (code.name.lower(),), snapshot.counters.ended[code]


def _refusals(snapshot: Snapshot) -> Iterator[Reading]:
    for reason in Refusal:
        yield (reason.value,), snapshot.counters.refusals[reason]


def _build(snapshot: Snapshot) -> Iterator[Reading]:
    yield (__version__,), 1


_service_counter = partial(of_service, Kind.COUNTER)
_service_gauge = partial(of_service, Kind.GAUGE)
_histogram = partial(of_model, Kind.HISTOGRAM)
_counter = partial(of_server, Kind.COUNTER)

ENTRIES = (
    # What models do.
    _service_counter(
        "pie_sampled_tokens_total",
        "Tokens sampled, and distributions given to inferlets.",
        lambda stats: stats.sampled,
    ),
    _service_counter(
        "pie_rows_total", "Inputs that have gone through the model.", lambda stats: stats.rows
    ),
    _service_counter("pie_steps_total", "Batches that were run.", lambda stats: stats.batches),
    _service_counter(
        "pie_decode_steps_total",
        "Batches in which no pass had more than one row.",
        lambda stats: stats.decode_batches,
    ),
    _service_counter(
        "pie_decode_rows_total", "Rows of these batches.", lambda stats: stats.decode_rows
    ),
    _service_counter(
        "pie_busy_seconds_total", "Time with a batch running.", lambda stats: stats.busy_seconds
    ),
    _service_counter(
        "pie_passes_total",
        "Passes that are over, failed and dropped ones too.",
        lambda stats: stats.passes,
    ),
    of_model(
        Kind.COUNTER,
        "pie_failed_passes_total",
        "Passes and commands that the device lost, or that needed a lost one.",
        lambda model: model.failed,
    ),
    of_model(
        Kind.COUNTER,
        "pie_failed_steps_total",
        "Batches that the device lost.",
        _failures,
    ),
    _histogram(
        "pie_step_seconds", "Time of a batch on the device.", lambda model: model.step_seconds
    ),
    _histogram("pie_step_rows", "Rows of a batch.", lambda model: model.step_rows),
    _histogram(
        "pie_pass_queue_seconds",
        "From the submission of a pass to the beginning of its first step.",
        lambda model: model.queue_seconds,
    ),
    _histogram(
        "pie_pass_seconds",
        "From the submission of a pass to the end of its last step.",
        lambda model: model.pass_seconds,
    ),
    # What models hold.
    of_pool("pie_pages", "KV pages.", lambda stats: (stats.pages_free, stats.pages)),
    of_pool(
        "pie_host_pages",
        "Places for KV pages in host memory.",
        lambda stats: (stats.host_pages_free, stats.host_pages),
    ),
    _service_gauge(
        "pie_pages_peak", "Most KV pages in use at once.", lambda stats: stats.pages_peak
    ),
    _service_counter(
        "pie_moved_pages_total", "KV pages moved to host memory.", lambda stats: stats.moved_out
    ),
    _service_gauge(
        "pie_free_embeddings", "Free embedding slots.", lambda stats: stats.embeddings_free
    ),
    _service_gauge(
        "pie_waiting_requests", "Requests for memory in line.", lambda stats: stats.waiting
    ),
    _service_gauge(
        "pie_queued_passes", "Passes and commands not finished.", lambda stats: stats.queued
    ),
    _service_gauge(
        "pie_model_instances", "Instances that may use the model.", lambda stats: stats.instances
    ),
    # Instances.
    _counter("pie_launches_total", "Instances launched.", lambda counters: counters.launches),
    of_server(
        Kind.HISTOGRAM,
        "pie_launch_seconds",
        "From the request for an instance to the reply that there is one.",
        lambda counters: counters.launch_seconds,
    ),
    Entry(
        "pie_ended_instances_total",
        Kind.COUNTER,
        "Instances that ended, by their last event.",
        _endings,
        ("event",),
    ),
    Entry(
        "pie_instances",
        Kind.GAUGE,
        "Instances that the server knows; finished ones wait for a client.",
        _instances,
        ("status",),
    ),
    # Clients.
    of_state("pie_connections", "Clients that are connected.", lambda state: state.connections),
    _counter(
        "pie_opened_connections_total",
        "Clients that have connected.",
        lambda counters: counters.connections,
    ),
    _counter("pie_uploads_total", "Programs uploaded.", lambda counters: counters.uploads),
    _counter(
        "pie_uploaded_bytes_total", "Of these programs.", lambda counters: counters.uploaded_bytes
    ),
    Entry(
        "pie_refusals_total",
        Kind.COUNTER,
        "What clients were refused, by the setting or the reason.",
        _refusals,
        ("reason",),
    ),
    _counter(
        "pie_protocol_errors_total",
        "Messages of clients that could not be understood.",
        lambda counters: counters.protocol_errors,
    ),
    _counter(
        "pie_dropped_output_bytes_total",
        "Output of detached instances that no client can get any more.",
        lambda counters: counters.dropped_bytes,
    ),
    # The process.
    of_state("pie_healthy", "1 if /healthz says so.", lambda state: 1.0 if state.healthy else 0.0),
    Entry(
        "pie_loop_late_seconds",
        Kind.HISTOGRAM,
        "How late the server's loop turns to something that is due.",
        lambda snapshot: iter([((), snapshot.lateness.seconds)]),
    ),
    Entry("pie_build_info", Kind.GAUGE, "1, with the version.", _build, ("version",)),
)
