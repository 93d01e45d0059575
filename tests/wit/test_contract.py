"""The contract in `wit/`: it parses, says what the seed says, and the host offers it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from inferlet import host

from pie.guest.host import HostInterface
from pie.guest.interfaces import ALL
from pie.guest.interfaces._signatures import SIGNATURES
from tools import wit_check

SEED = Path(__file__).parent.parent / "vectors" / "forward.wit.txt"

MEMBERS = {
    "inferlet:core/common": """
        [constructor]blob [method]blob.read [method]blob.size
        [method]blob-result.pollable [method]blob-result.get
        [method]model.get-name [method]model.get-traits [method]model.get-description
        [method]model.get-prompt-template [method]model.get-stop-tokens
        [method]model.get-service-id [method]model.get-kv-page-size [method]model.create-queue
        [method]queue.get-service-id [method]queue.synchronize [method]queue.set-priority
        [method]queue.debug-query
        [method]synchronization-result.pollable [method]synchronization-result.get
        [method]debug-query-result.pollable [method]debug-query-result.get
        allocate-resources deallocate-resources get-all-exported-resources
        release-exported-resources export-resources import-resources""",
    "inferlet:core/runtime": """
        get-version get-instance-id get-arguments set-return get-model get-all-models
        get-all-models-with-traits debug-query""",
    "inferlet:core/tokenize": """
        get-tokenizer [method]tokenizer.tokenize [method]tokenizer.detokenize
        [method]tokenizer.get-vocabs [method]tokenizer.get-split-regex
        [method]tokenizer.get-special-tokens""",
    "inferlet:core/kvs": "store-get store-set store-delete store-exists store-list-keys",
    "inferlet:core/message": """
        [method]subscription.pollable [method]subscription.get [method]subscription.unsubscribe
        [method]receive-result.pollable [method]receive-result.get
        send receive send-blob receive-blob broadcast subscribe""",
    "inferlet:adapter/common": "set-adapter download-adapter upload-adapter",
    "inferlet:zo/evolve": "set-adapter-seed initialize-adapter update-adapter",
    "inferlet:image/image": "embed-image calculate-embed-size",
    "pie:ext/ext": """
        [method]embedding-result.pollable [method]embedding-result.get
        try-import try-export try-allocate share-pages read-embeddings tokenize-plain decode
        [method]decoding.pollable [method]decoding.ended [method]decoding.get
        [method]decoding.next [method]decoding.cancel""",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return wit_check.parse(wit_check.assemble("ext"))


def seed_functions() -> dict[str, tuple[tuple[tuple[str, str], ...], str]]:
    """The seed's functions, read with nothing but regular expressions."""
    text = re.sub(r"//.*", "", SEED.read_text())
    functions: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {}
    for resource, body in re.findall(r"resource ([a-z-]+) \{(.*?)\n    \}", text, re.DOTALL):
        for name, _, result in re.findall(_FUNCTION, body):
            functions[f"[method]{resource}.{name}"] = (
                (("self", f"borrow<{resource}>"),),
                result.strip(),
            )
    outside = re.sub(r"resource [a-z-]+ \{.*?\n    \}", "", text, flags=re.DOTALL)
    for name, parameters, result in re.findall(_FUNCTION, outside):
        pairs = re.findall(r"([a-z-]+):\s*([a-z0-9<>-]+)", parameters)
        functions[name] = (tuple(pairs), result.strip())
    return functions


_FUNCTION = re.compile(r"([a-z-]+): func\(([^)]*)\)(?: -> ([^;]+))?;")


def test_forward_is_the_seed_to_the_letter() -> None:
    seed = seed_functions()
    assert len(seed) == 16
    ours = {name: tuple(each) for name, each in SIGNATURES["inferlet:core/forward"].items()}
    assert ours == seed


def test_forward_keeps_the_seeds_order() -> None:
    """Of functions; resources may stand before or after them."""
    free = [name for name in SIGNATURES["inferlet:core/forward"] if "]" not in name]
    assert free == [name for name in seed_functions() if "]" not in name]


@pytest.mark.parametrize("interface", MEMBERS)
def test_an_interface_has_its_members_and_no_others(interface: str) -> None:
    assert sorted(SIGNATURES[interface]) == sorted(MEMBERS[interface].split())


def test_the_table_covers_every_interface() -> None:
    assert set(SIGNATURES) == {*MEMBERS, "inferlet:core/forward"}


@pytest.mark.parametrize(
    ("interface", "function", "parameters", "result"),
    [
        (
            "inferlet:core/common",
            "get-all-exported-resources",
            "queue: borrow<queue>, resource-type: u32",
            "list<tuple<string, u32>>",
        ),
        ("inferlet:core/message", "send-blob", "blob: blob", ""),
        ("inferlet:core/tokenize", "get-tokenizer", "queue: borrow<model>", "tokenizer"),
        (
            "inferlet:adapter/common",
            "download-adapter",
            "queue: borrow<queue>, adapter-ptr: pointer, name: string",
            "blob-result",
        ),
        (
            "inferlet:zo/evolve",
            "update-adapter",
            "queue: borrow<queue>, adapter-ptr: pointer, scores: list<f32>, seeds: list<s64>, "
            "max-sigma: f32",
            "",
        ),
        (
            "pie:ext/ext",
            "try-import",
            "queue: borrow<queue>, resource-type: u32, name: string",
            "option<list<pointer>>",
        ),
        (
            "pie:ext/ext",
            "decode",
            "pass: borrow<forward-pass>, steps: u32, stop-tokens: list<u32>, growth: list<pointer>",
            "decoding",
        ),
    ],
)
def test_signatures_as_the_contract_writes_them(
    interface: str, function: str, parameters: str, result: str
) -> None:
    signature = SIGNATURES[interface][function]
    assert ", ".join(f"{name}: {kind}" for name, kind in signature.parameters) == parameters
    assert signature.result == result


def test_the_guest_library_binds_all_of_the_core_and_ext_packages() -> None:
    prefixes = {value: name for name, value in vars(host).items() if name in _PREFIXES}
    assert len(prefixes) == 7
    source = Path(host.__file__).read_text()
    bound = re.findall(r'bind\((_[A-Z]+), "(.+?)"\)', source)
    assert sorted((getattr(host, name), function) for name, function in bound) == sorted(
        (interface, function) for interface in prefixes for function in SIGNATURES[interface]
    )


_PREFIXES = {"_COMMON", "_FORWARD", "_RUNTIME", "_TOKENIZE", "_KVS", "_MESSAGE", "_EXT"}


@pytest.mark.parametrize("package", sorted(wit_check.package_folders()))
def test_every_package_parses_alone(package: str) -> None:
    assert wit_check.parse(wit_check.assemble(package))["packages"]


def test_the_folder_resolves_as_it_is() -> None:
    """A component's author points a tool at `wit/` and needs no script of ours."""
    worlds = {each["name"] for each in wit_check.parse(wit_check.WIT)["worlds"]}
    assert worlds == {"imports", "exec"}


def test_the_table_is_fresh(document: dict[str, Any]) -> None:
    assert wit_check.render(wit_check.table_of(document)) == wit_check.TABLE.read_text()


def test_the_host_offers_the_contract(document: dict[str, Any]) -> None:
    assert wit_check.differences(wit_check.table_of(document), ALL) == []


def test_what_differs_is_found(document: dict[str, Any]) -> None:
    table = wit_check.table_of(document)
    kvs = next(each for each in ALL if each.name == "inferlet:core/kvs")
    wrong = HostInterface(kvs.name, dict(kvs.functions))
    del wrong.functions["store-delete"]
    wrong.functions["store-purge"] = wrong.functions["store-get"]
    wrong.functions["store-set"] = attrs.evolve(
        wrong.functions["store-set"], implementation=lambda instance, key: None
    )
    others = [each for each in ALL if each not in (kvs, ALL[0])]
    assert wit_check.differences(table, [*others, wrong, HostInterface("inferlet:core/more")]) == [
        f"{ALL[0].name}: not offered by the host",
        "inferlet:core/kvs#store-delete: missing",
        "inferlet:core/kvs#store-purge: not in the contract",
        "inferlet:core/kvs#store-set: takes 2 parameters, 3 expected (the instance first)",
        "inferlet:core/more: not in the contract",
    ]
