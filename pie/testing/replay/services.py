"""The models of a record as services: the real scheduler and executor on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
import trio

from pie.activity import Activity
from pie.actors.batching import Scheduler
from pie.actors.executor import Device, Executor
from pie.actors.observer import Observer
from pie.batch import ModelInfo
from pie.config import Scheduling
from pie.errors import UsageError
from pie.messages import ExecutorMessage, ModelService, SchedulerMessage
from pie.trace.reading import ModelFacts

MakeDevice: TypeAlias = Callable[[ModelFacts, ModelInfo], Device]


def start_service(
    index: int,
    info: ModelInfo,
    device: Device,
    config: Scheduling,
    observer: Observer,
    nursery: trio.Nursery,
) -> ModelService:
    """A model on `device`, which runs in `nursery` until its service is closed."""
    address, mailbox = trio.open_memory_channel[SchedulerMessage](math.inf)
    executor, batches = trio.open_memory_channel[ExecutorMessage](0)
    activity = Activity()
    scheduler = Scheduler(mailbox, executor, info, activity, config, None, observer)
    nursery.start_soon(Executor(batches, device).run)
    nursery.start_soon(scheduler.run)
    return ModelService(index=index, info=info, activity=activity, scheduler=address)


def scheduling_of(facts: ModelFacts, changes: Mapping[str, Any]) -> Scheduling:
    """As recorded, but for `changes`. UsageError for a setting that there is not."""
    known = {field.name for field in attrs.fields(Scheduling)}
    for name in {*facts.scheduling, *changes} - known:
        raise UsageError(f"there is no scheduling setting {name!r}; there are {sorted(known)}")
    return Scheduling(**{**facts.scheduling, **changes})
