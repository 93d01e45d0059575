"""Loading says in one line why something is no inferlet; the cache runs only what is ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import wasmtime.component as wit
from wasmtime import wat2wasm

from pie.errors import GuestError, ProgramError, UsageError
from pie.guest import cache as cache_module
from pie.guest import linker
from pie.guest.host import HostInterface, Ok
from pie.guest.values import Resources
from pie.guest.wasm import Epochs, Fuel

from .support import FUEL, component, hosting, make_instance

NOOP = component("", [], "", functions=[])
CORE_MODULE = b"\0asm\x01\x00\x00\x00"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "not WebAssembly: it begins with b''"),
        (b"#!/bin/sh", "not WebAssembly: it begins with b'#!/b'"),
        (b"(component", "not WebAssembly text: "),
        (CORE_MODULE, "a core module, not a component"),
        (b"\0asm\x63\x00\x01\x00", "an unknown kind of WebAssembly: version 63 00 01 00"),
        (b"\0asm\x0d\x00\x01\x00garbage", "not a valid component: "),
        (b"(component)", "it does not export inferlet:core/run (it exports nothing)"),
        (
            b'(component (instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i)))',
            "(it exports wasi:http/incoming-handler@0.2.0)",
        ),
        (
            b'(component (instance $i) (export "inferlet:core/run" (instance $i)))',
            "its inferlet:core/run lacks `run: func() -> result<_, string>`",
        ),
        (
            NOOP.replace("(result (result (error string)))", "(result u32)").encode(),
            "its inferlet:core/run lacks `run: func() -> result<_, string>`",
        ),
    ],
)
async def test_what_is_no_inferlet_is_refused_in_one_line(source: bytes, reason: str) -> None:
    async with hosting() as host:
        with pytest.raises(ProgramError) as caught:
            await host.load(source, name="it")
    assert str(caught.value).startswith("it: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_missing_file_is_named() -> None:
    async with hosting() as host:
        with pytest.raises(ProgramError, match=r"cannot read /no/such/file.wasm: No such file"):
            await host.load(Path("/no/such/file.wasm"))


@pytest.mark.parametrize("version", ["", "@0.2.0", "@1.0.0"])
async def test_run_may_be_exported_with_any_version(version: str, tmp_path: Path) -> None:
    text = NOOP.replace('(export "inferlet:core/run"', f'(export "inferlet:core/run{version}"')
    path = tmp_path / "noop.wasm"
    path.write_bytes(wat2wasm(text))
    async with hosting() as host:
        for source in (path, path.read_bytes(), text.encode()):
            assert await host.run(await host.load(source), make_instance()) == Ok()


async def test_a_wrong_link_is_found_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linking is by reflection, so only a fault of ours makes one; it must not wait."""

    def link_nothing(engine: Any, component: Any, interfaces: Any) -> linker.Linked:
        return linker.Linked(wit.Linker(engine), Resources(), [])

    monkeypatch.setattr(linker, "link", link_nothing)
    text = component('(export "f" (func))', [], "", functions=[])
    async with hosting() as host:
        with pytest.raises(ProgramError, match="test:toy/api"):
            await host.load(text.encode())


async def test_a_start_function_that_calls_the_host_is_not_run_at_load() -> None:
    calls: list[int] = []
    api = HostInterface("test:toy/api")
    api.function("note")(lambda instance: calls.append(1))
    text = component(
        '(export "note" (func))',
        ["note"],
        "",
        functions=['(import "api" "note" (func $note)) (start $note)'],
    )
    async with hosting(api) as host:
        program = await host.load(text.encode())
        assert calls == []
        assert await host.run(program, make_instance()) == Ok()
    assert calls == [1]


@pytest.mark.parametrize("preemption", [Epochs(), FUEL])
async def test_a_second_load_takes_the_machine_code_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preemption: Epochs | Fuel
) -> None:
    folder = tmp_path / "cache"
    async with hosting(cache=folder, preemption=preemption) as host:
        await host.load(NOOP.encode())
    assert folder.stat().st_mode & 0o777 == 0o700
    (made,) = folder.iterdir()
    assert made.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(cache_module, "compile_component", None)
    async with hosting(cache=folder, preemption=preemption) as host:
        program = await host.load(NOOP.encode())
        assert await host.run(program, make_instance()) == Ok()


async def test_another_configuration_has_its_own_machine_code(tmp_path: Path) -> None:
    for preemption in (Epochs(), FUEL):
        async with hosting(cache=tmp_path / "cache", preemption=preemption) as host:
            await host.load(NOOP.encode())
    assert len(list((tmp_path / "cache").iterdir())) == 2


async def test_another_processor_has_its_own_machine_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for features in ("sse", "sse avx"):
        monkeypatch.setattr(cache_module, "cpu_features", lambda features=features: features)
        async with hosting(cache=tmp_path / "cache") as host:
            await host.load(NOOP.encode())
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_cache_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError, match=f"with mode 0700; .* has mode {mode:04o}"):
        cache_module.Cache(folder, None, "epochs")


def test_a_cache_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="must be a folder"):
        cache_module.Cache(tmp_path / "link", None, "epochs")


@pytest.mark.parametrize("damage", ["mode", "content", "link"])
async def test_a_file_that_is_not_as_we_wrote_it_is_replaced_not_run(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    async with hosting(cache=folder) as host:
        await host.load(NOOP.encode())
        (made,) = folder.iterdir()
        code = made.read_bytes()
        if damage == "mode":
            made.chmod(0o644)
        elif damage == "content":
            made.write_bytes(code[:-1] + bytes([code[-1] ^ 1]))
        else:
            other = tmp_path / "elsewhere"
            os.rename(made, other)
            made.symlink_to(other)
        program = await host.load(NOOP.encode())
        assert await host.run(program, make_instance()) == Ok()
    assert "not using" in caplog.text
    (made,) = folder.iterdir()
    assert not made.is_symlink()
    assert made.read_bytes() == code


async def test_a_trap_in_the_start_function_ends_that_guest_only() -> None:
    text = component("", [], "", functions=["(func $start unreachable) (start $start)"])
    async with hosting() as host:
        program = await host.load(text.encode())
        with pytest.raises(GuestError, match="unreachable"):
            await host.run(program, make_instance())


def _doubling(depth: int) -> str:
    """Declares the type $t with two to the power of `depth` numbers in it."""
    types = "".join(f"(type $t{n + 1} (tuple $t{n} $t{n}))" for n in range(depth))
    return f"(type $t0 (tuple u32)) {types} (type $t (tuple $t{depth}))"


@pytest.mark.parametrize(
    "imports",
    [
        f'{_doubling(13)} (export "f" (func (param "a" $t)))',
        f'{_doubling(13)} (export "f" (func (result (result (option $t)))))',
        " ".join(f'(export "f{number}" (func))' for number in range(10_001)),
    ],
)
async def test_a_type_that_would_take_minutes_to_link_is_refused(imports: str) -> None:
    """Such a component has a few hundred bytes."""
    text = component(imports, [], "", functions=[])
    async with hosting() as host:
        with pytest.raises(ProgramError, match="or their types too large: more than 10000 parts"):
            await host.load(text.encode())


async def test_every_kind_of_type_is_looked_into() -> None:
    text = component(
        '(type $r0 (record (field "a" (list (tuple u8 (option string))))))'
        '(export "r" (type $r (eq $r0))) (type $v0 (variant (case "a" $r) (case "b")))'
        '(export "v" (type $v (eq $v0))) (export "f" (func (result (result $v (error string)))))',
        [],
        "",
        functions=[],
    )
    async with hosting() as host:
        assert await host.run(await host.load(text.encode()), make_instance()) == Ok()


async def test_the_cache_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server runs for months, and its clients upload new builds all the time."""
    texts = [NOOP.replace("(component", f"(component (core module $m{n})", 1) for n in range(3)]
    async with hosting(cache=tmp_path / "cache") as host:
        for age, text in enumerate(texts[:2]):
            await host.load(text.encode())
            for path in (tmp_path / "cache").iterdir():
                os.utime(path, (1e9 + age, 1e9 + age))
        assert host._cache is not None
        size = max(path.stat().st_size for path in (tmp_path / "cache").iterdir())
        host._cache._limit = int(size * 2.5)
        await host.load(texts[0].encode())
        await host.load(texts[2].encode())

        lacking = [await host.needs_compiling(text.encode()) for text in texts]
    assert lacking == [False, True, False]
