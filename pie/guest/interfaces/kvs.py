"""`inferlet:core/kvs`: the key-value store of the instance's user (contract X3)."""

from __future__ import annotations

from pie.errors import LimitExceeded
from pie.guest.host import HostInterface, Wait
from pie.guest.instance import Instance
from pie.mailbox import tell
from pie.messages import DeleteKey, GetKey, ListKeys, SetKey

from .handles import wait_for

kvs = HostInterface("inferlet:core/kvs")


@kvs.function("store-get", suspends=True)
def store_get(instance: Instance, key: str) -> Wait:
    question = GetKey(instance.user, key)
    tell(instance.store, question)
    return wait_for(question.reply)


@kvs.function("store-set", suspends=True)
def store_set(instance: Instance, key: str, value: str) -> Wait:
    instance.check_name(key, "store-set")
    size, limit = len(value.encode()), instance.limits.max_value_bytes
    if size > limit:
        raise LimitExceeded(f"store-set: a value of {size} bytes, the limit is {limit}")
    question = SetKey(instance.user, key, value)
    tell(instance.store, question)
    return wait_for(question.reply)


@kvs.function("store-delete", suspends=True)
def store_delete(instance: Instance, key: str) -> Wait:
    question = DeleteKey(instance.user, key)
    tell(instance.store, question)
    return wait_for(question.reply)


@kvs.function("store-exists", suspends=True)
def store_exists(instance: Instance, key: str) -> Wait:
    question = GetKey(instance.user, key)
    tell(instance.store, question)
    return Wait((question.reply,), lambda: question.reply.take() is not None)


@kvs.function("store-list-keys", suspends=True)
def store_list_keys(instance: Instance) -> Wait:
    question = ListKeys(instance.user)
    tell(instance.store, question)
    return wait_for(question.reply)
