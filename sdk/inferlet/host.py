"""Every function of `inferlet:core` and `pie:ext`, bound once, whatever the inferlet runs in.

`Context` covers the usual; techniques that build passes of their own call these. Handles are
opaque; release them with `drop`, a pollable before what it came from. Units and traps are in the
WIT packages.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.platform != "wasi":
    from ._native import alone, bind, drop, gather, priority, sleep, wait, write
else:
    from ._wasm import alone, bind, drop, gather, priority, sleep, wait, write

__all__ = ["alone", "drop", "gather", "priority", "ready", "sleep", "wait", "write"]

_COMMON = "inferlet:core/common"
_FORWARD = "inferlet:core/forward"
_RUNTIME = "inferlet:core/runtime"
_TOKENIZE = "inferlet:core/tokenize"
_KVS = "inferlet:core/kvs"
_MESSAGE = "inferlet:core/message"
_EXT = "pie:ext/ext"

KV_PAGE = 0
"""The resource type number of KV pages."""

get_name = bind(_COMMON, "[method]model.get-name")
get_traits = bind(_COMMON, "[method]model.get-traits")
get_description = bind(_COMMON, "[method]model.get-description")
get_service_id = bind(_COMMON, "[method]model.get-service-id")
get_prompt_template = bind(_COMMON, "[method]model.get-prompt-template")
get_stop_tokens = bind(_COMMON, "[method]model.get-stop-tokens")
get_kv_page_size = bind(_COMMON, "[method]model.get-kv-page-size")
create_queue = bind(_COMMON, "[method]model.create-queue")
queue_service_id = bind(_COMMON, "[method]queue.get-service-id")
synchronize = bind(_COMMON, "[method]queue.synchronize")
set_priority = bind(_COMMON, "[method]queue.set-priority")
queue_debug_query = bind(_COMMON, "[method]queue.debug-query")
synchronization_pollable = bind(_COMMON, "[method]synchronization-result.pollable")
synchronization_get = bind(_COMMON, "[method]synchronization-result.get")
debug_pollable = bind(_COMMON, "[method]debug-query-result.pollable")
debug_get = bind(_COMMON, "[method]debug-query-result.get")
new_blob = bind(_COMMON, "[constructor]blob")
blob_read = bind(_COMMON, "[method]blob.read")
blob_size = bind(_COMMON, "[method]blob.size")
blob_pollable = bind(_COMMON, "[method]blob-result.pollable")
blob_get = bind(_COMMON, "[method]blob-result.get")
allocate = bind(_COMMON, "allocate-resources")
deallocate = bind(_COMMON, "deallocate-resources")
export_resources = bind(_COMMON, "export-resources")
import_resources = bind(_COMMON, "import-resources")
release_exported = bind(_COMMON, "release-exported-resources")
all_exported = bind(_COMMON, "get-all-exported-resources")

create_pass = bind(_FORWARD, "create-forward-pass")
input_tokens = bind(_FORWARD, "input-tokens")
input_embeddings = bind(_FORWARD, "input-embeddings")
output_embeddings = bind(_FORWARD, "output-embeddings")
kv_cache = bind(_FORWARD, "kv-cache")
attention_mask = bind(_FORWARD, "attention-mask")
output_tokens = bind(_FORWARD, "output-tokens")
output_tokens_top_k = bind(_FORWARD, "output-tokens-top-k")
output_tokens_top_p = bind(_FORWARD, "output-tokens-top-p")
output_tokens_min_p = bind(_FORWARD, "output-tokens-min-p")
output_tokens_top_k_top_p = bind(_FORWARD, "output-tokens-top-k-top-p")
output_distributions = bind(_FORWARD, "output-distributions")
execute = bind(_FORWARD, "[method]forward-pass.execute")
pass_pollable = bind(_FORWARD, "[method]forward-pass-result.pollable")
get_tokens = bind(_FORWARD, "[method]forward-pass-result.get-tokens")
get_distributions = bind(_FORWARD, "[method]forward-pass-result.get-distributions")

get_version = bind(_RUNTIME, "get-version")
get_instance_id = bind(_RUNTIME, "get-instance-id")
get_arguments = bind(_RUNTIME, "get-arguments")
set_return = bind(_RUNTIME, "set-return")
get_model = bind(_RUNTIME, "get-model")
get_all_models = bind(_RUNTIME, "get-all-models")
get_models_with_traits = bind(_RUNTIME, "get-all-models-with-traits")
debug_query = bind(_RUNTIME, "debug-query")

get_tokenizer = bind(_TOKENIZE, "get-tokenizer")
tokenize = bind(_TOKENIZE, "[method]tokenizer.tokenize")
detokenize = bind(_TOKENIZE, "[method]tokenizer.detokenize")
get_vocabs = bind(_TOKENIZE, "[method]tokenizer.get-vocabs")
get_split_regex = bind(_TOKENIZE, "[method]tokenizer.get-split-regex")
get_special_tokens = bind(_TOKENIZE, "[method]tokenizer.get-special-tokens")

store_get = bind(_KVS, "store-get")
store_set = bind(_KVS, "store-set")
store_delete = bind(_KVS, "store-delete")
store_exists = bind(_KVS, "store-exists")
store_list_keys = bind(_KVS, "store-list-keys")

send = bind(_MESSAGE, "send")
receive = bind(_MESSAGE, "receive")
receive_pollable = bind(_MESSAGE, "[method]receive-result.pollable")
receive_get = bind(_MESSAGE, "[method]receive-result.get")
send_blob = bind(_MESSAGE, "send-blob")
receive_blob = bind(_MESSAGE, "receive-blob")
broadcast = bind(_MESSAGE, "broadcast")
subscribe = bind(_MESSAGE, "subscribe")
subscription_pollable = bind(_MESSAGE, "[method]subscription.pollable")
subscription_get = bind(_MESSAGE, "[method]subscription.get")
unsubscribe = bind(_MESSAGE, "[method]subscription.unsubscribe")

decode = bind(_EXT, "decode")
decoding_pollable = bind(_EXT, "[method]decoding.pollable")
decoding_ended = bind(_EXT, "[method]decoding.ended")
decoding_get = bind(_EXT, "[method]decoding.get")
decoding_next = bind(_EXT, "[method]decoding.next")
decoding_cancel = bind(_EXT, "[method]decoding.cancel")
try_allocate = bind(_EXT, "try-allocate")
try_import = bind(_EXT, "try-import")
try_export = bind(_EXT, "try-export")
share_pages = bind(_EXT, "share-pages")
read_embeddings = bind(_EXT, "read-embeddings")
embedding_pollable = bind(_EXT, "[method]embedding-result.pollable")
embedding_get = bind(_EXT, "[method]embedding-result.get")
tokenize_plain = bind(_EXT, "tokenize-plain")


async def ready(pollable: Any) -> None:
    """Wait for a pollable that nobody else needs, then release it."""
    try:
        await wait(pollable)
    finally:
        drop(pollable)
