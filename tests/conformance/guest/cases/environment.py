"""`runtime`, `tokenize`, `kvs`, `message`, and `wasi:io/poll`."""

from __future__ import annotations

import json
from typing import Any

from .case import PAGE, Guest, Refusal, case


@case(returns=["0.2.0", True, ["instance_facts", "a", "b c"]], arguments=("a", "b c"))
async def instance_facts(guest: Guest) -> Any:
    """Contract X7: the version is the interface's; an id is a UUID."""
    number = await guest.do("get-instance-id")
    return [
        await guest.do("get-version"),
        len(number) == 36 and number == await guest.do("get-instance-id"),
        list(await guest.do("get-arguments")),
    ]


@case(returns="the last one")
async def return_value_is_the_last_that_was_set(guest: Guest) -> Any:
    """Contract X0."""
    await guest.do("set-return", "the first")
    return "the last one"


@case(traps="exactly this text")
async def error_that_run_returns_is_the_exception(guest: Guest) -> Any:
    """Contract X0, G3."""
    await guest.do("set-return", "nobody sees this")
    raise Refusal("exactly this text")


@case(returns=[["simulated", "second"], None, ["simulated", "second"], ["simulated"], []])
async def models_are_found_by_name_and_traits(guest: Guest) -> Any:
    """Contract X1: an unknown name is none; the second model takes no adapters."""
    return [
        list(await guest.do("get-all-models")),
        await guest.do("get-model", "unknown"),
        list(await guest.do("get-all-models-with-traits", [])),
        list(await guest.do("get-all-models-with-traits", ["forward", "adapter"])),
        list(await guest.do("get-all-models-with-traits", ["input_image"])),
    ]


@case(returns=["pong", "1", "Unknown query: x", 1])
async def runtime_answers_queries(guest: Guest) -> Any:
    """Contract X7: about this user's own instances."""
    answers = []
    for query in ("ping", "get_instance_count", "x", "stats"):
        result = await guest.do("debug-query", query)
        await guest.wait("debug-query-result", result)
        answers.append(await guest.do("debug-query-result.get", result))
    answers[3] = len(json.loads(answers[3]))
    return answers


@case(returns=[[104, 105], [256, 97], "hi<|im_start|>", "\ufffd", [], ""])
async def tokenizer_knows_special_tokens(guest: Guest) -> Any:
    """Contract X2: special tokens are recognised and rendered; half a character is U+FFFD."""
    tokenizer = await guest.do("get-tokenizer", await guest.model())
    return [
        list(await guest.do("tokenizer.tokenize", tokenizer, "hi")),
        list(await guest.do("tokenizer.tokenize", tokenizer, "<|im_start|>a")),
        await guest.do("tokenizer.detokenize", tokenizer, [104, 105, 256]),
        await guest.do("tokenizer.detokenize", tokenizer, [0xE2]),
        list(await guest.do("tokenizer.tokenize", tokenizer, "")),
        await guest.do("tokenizer.detokenize", tokenizer, []),
    ]


@case(returns=[256, [97, "a"], [255, "\xff"], [[256, 257], ["<|im_start|>", "<|im_end|>"]], "."])
async def tokenizer_lists_its_tokens(guest: Guest) -> Any:
    """Contract X2."""
    tokenizer = await guest.do("get-tokenizer", await guest.model())
    ids, texts = await guest.do("tokenizer.get-vocabs", tokenizer)
    return [
        len(ids),
        [ids[97], texts[97]],
        [ids[255], texts[255]],
        await guest.do("tokenizer.get-special-tokens", tokenizer),
        await guest.do("tokenizer.get-split-regex", tokenizer),
    ]


@case(returns=[5000, True])
async def long_text_is_tokenized_as_short(guest: Guest) -> Any:
    """Contract X2."""
    tokenizer = await guest.do("get-tokenizer", await guest.model())
    tokens = list(await guest.do("tokenizer.tokenize", tokenizer, "x" * 5000))
    return [len(tokens), await guest.do("tokenizer.detokenize", tokenizer, tokens) == "x" * 5000]


@case(traps="detokenize: 300 is not a token id (X2)")
async def unknown_token_traps(guest: Guest) -> Any:
    """Contract X2, G1."""
    tokenizer = await guest.do("get-tokenizer", await guest.model())
    await guest.do("tokenizer.detokenize", tokenizer, [104, 300])


@case(returns=[None, False, "1", True, "2", ["a", "b"], None, ["b"], ""])
async def store_is_read_as_written(guest: Guest) -> Any:
    """Contract X3: read-your-writes; deleting a key twice is no mistake."""
    seen = [await guest.do("store-get", "a"), await guest.do("store-exists", "a")]
    await guest.do("store-set", "a", "1")
    seen += [await guest.do("store-get", "a"), await guest.do("store-exists", "a")]
    await guest.do("store-set", "a", "2")
    await guest.do("store-set", "b", "")
    seen.append(await guest.do("store-get", "a"))
    seen.append(sorted(await guest.do("store-list-keys")))
    await guest.do("store-delete", "a")
    await guest.do("store-delete", "a")
    seen += [await guest.do("store-get", "a"), list(await guest.do("store-list-keys"))]
    return [*seen, await guest.do("store-get", "b")]


@case(limits={"max_key_bytes": 8}, traps="store-set: a name of 9 bytes, the limit is 8")
async def long_key_traps(guest: Guest) -> Any:
    """Contract X3: key-value pairs have size limits."""
    await guest.do("store-set", "12345678", "fits")
    await guest.do("store-set", "123456789", "")


@case(limits={"max_value_bytes": 4}, traps="store-set: a value of 5 bytes, the limit is 4")
async def long_value_traps(guest: Guest) -> Any:
    """Contract X3."""
    await guest.do("store-set", "key", "12345")


@case(returns=None, messages=("one", "two"), blobs=(b"\0\xff",))
async def client_is_told_in_order(guest: Guest) -> Any:
    """Contract X4, G3: messages are event 0."""
    await guest.do("send", "one")
    await guest.do("send-blob", await guest.do("blob", b"\0\xff"))
    await guest.do("send", "two")


@case(returns=[None, False, "hello", "hello", "again"], sends=("hello", "again"))
async def messages_of_the_client_arrive_in_order(guest: Guest) -> Any:
    """Contract X4, X5: none before it is there, the same value when taken again."""
    first = await guest.do("receive")
    pollable = await guest.do("receive-result.pollable", first)
    seen = [await guest.do("receive-result.get", first), await guest.do("pollable.ready", pollable)]
    await guest.do("pollable.block", pollable)
    seen += [await guest.do("receive-result.get", first) for _ in range(2)]
    second = await guest.do("receive")
    await guest.wait("receive-result", second)
    return [*seen, await guest.do("receive-result.get", second)]


@case(returns="kept", sends=("kept",))
async def pending_receive_that_is_dropped_loses_nothing(guest: Guest) -> Any:
    """Contract X4."""
    guest.drop(await guest.do("receive"))
    result = await guest.do("receive")
    await guest.wait("receive-result", result)
    return await guest.do("receive-result.get", result)


@case(returns=[True, "\0\u00ff", 2, True], sends=(b"\0\xff",))
async def blob_of_the_client_is_taken_once(guest: Guest) -> Any:
    """Contract X5, X4."""
    result = await guest.do("receive-blob")
    early = await guest.do("blob-result.get", result)
    await guest.wait("blob-result", result)
    blob = await guest.do("blob-result.get", result)
    again = await guest.do("blob-result.get", result)
    content = await guest.do("blob.read", blob, 0, 100)
    return [early is None, content, await guest.do("blob.size", blob), again is None]


@case(returns=[None, False, "one", "two", None, True, None])
async def subscription_gives_what_is_broadcast_afterwards(guest: Guest) -> Any:
    """Contract X4, X5: after `unsubscribe` the pollable is ready and there is nothing."""
    await guest.do("broadcast", "topic", "too early")
    subscription = await guest.do("subscribe", "topic")
    pollable = await guest.do("subscription.pollable", subscription)
    seen = [
        await guest.do("subscription.get", subscription),
        await guest.do("pollable.ready", pollable),
    ]
    await guest.do("broadcast", "other", "elsewhere")
    await guest.do("broadcast", "topic", "one")
    await guest.do("broadcast", "topic", "two")
    await guest.do("pollable.block", pollable)
    seen += [await guest.do("subscription.get", subscription) for _ in range(3)]
    await guest.do("subscription.unsubscribe", subscription)
    await guest.do("broadcast", "topic", "too late")
    seen.append(await guest.do("pollable.ready", pollable))
    return [*seen, await guest.do("subscription.get", subscription)]


@case(returns=["6", "69"])
async def subscription_keeps_its_newest_messages(guest: Guest) -> Any:
    """Contract X4: 64 of them."""
    subscription = await guest.do("subscribe", "topic")
    for index in range(70):
        await guest.do("broadcast", "topic", str(index))
    await guest.wait("subscription", subscription)
    texts = [await guest.do("subscription.get", subscription) for _ in range(64)]
    return [texts[0], texts[-1]]


@case(limits={"max_message_bytes": 4}, messages=("four",), traps="send: 5 bytes, the limit is 4")
async def long_message_traps(guest: Guest) -> Any:
    """Contract X4, G1."""
    await guest.do("send", "four")
    await guest.do("send", "fiver")


@case(returns=[[0, 2], True, [1]], sends=("now",))
async def poll_gives_every_ready_index(guest: Guest) -> Any:
    """Contract X9: the same pollable twice is ready twice."""
    soon = await guest.do("receive")
    never = await guest.do("subscribe", "never")
    ready = await guest.do("receive-result.pollable", soon)
    pending = await guest.do("subscription.pollable", never)
    first = await guest.do("poll", [ready, pending, ready])
    state = await guest.do("pollable.ready", ready)
    return [list(first), state, list(await guest.do("poll", [pending, ready]))]


@case(returns=[True, False, True, True])
async def clock_wakes_when_asked(guest: Guest) -> Any:
    """Contract X9: a pollable of the clock is one like the others."""
    began = await guest.do("now")
    pollable = await guest.do("subscribe-duration", 250_000_000)
    early = await guest.do("pollable.ready", pollable)
    await guest.do("pollable.block", pollable)
    slept = await guest.do("now") - began
    return [began >= 0, early, slept >= 250_000_000, slept < 1_000_000_000]


@case(traps="poll: the list of pollables is empty (X9)")
async def poll_of_nothing_traps(guest: Guest) -> Any:
    """Contract X9."""
    await guest.do("poll", [])


@case(returns=True)
async def handles_may_be_dropped_early_in_any_order(guest: Guest) -> Any:
    """Contract F8: what was submitted still runs, though its queue and model are gone."""
    model = await guest.model()
    queue = await guest.do("model.create-queue", model)
    guest.drop(model)
    (page,) = await guest.do("allocate-resources", queue, PAGE, 1)
    built = await guest.a_pass(queue, [65, 66], [page], 2)
    await guest.do("output-tokens", built, [1], 0.0)
    dropped = await guest.do("forward-pass.execute", built)
    guest.drop(dropped)
    guest.drop(built)
    guest.drop(queue)
    queue = await guest.queue()
    (other,) = await guest.do("allocate-resources", queue, PAGE, 1)
    await guest.fed(queue, [65, 66], [other], 2)
    expected = await guest.fed(queue, [67], [other], 3)
    return await guest.fed(queue, [67], [page], 3) == expected
