"""The settings file: what it decides, and one line about what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie.config import EngineConfig, Limits, Scheduling
from pie.errors import UsageError
from pie.server.config import Auth, Quotas, ServerConfig
from pie.server.protocol import MAX_TEXT
from pie.server.settings import ModelSettings, Settings, State, read_settings
from pie.server.settings_keys import TABLES

Read = Callable[[str], Settings]
Refuse = Callable[[str], str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def read(path: Path) -> Read:
    def settings(text: str) -> Settings:
        path.write_text(text)
        return read_settings(path)

    return settings


@pytest.fixture
def refuse(path: Path, read: Read) -> Refuse:
    """Why a text is refused, without the file's name, after checking that it is one line."""

    def reason(text: str) -> str:
        with pytest.raises(UsageError) as caught:
            read(text)
        shown = str(caught.value)
        assert "\n" not in shown
        assert shown.startswith(f"{path}: ")
        return shown.removeprefix(f"{path}: ")

    return reason


def test_an_empty_file_is_the_defaults(read: Read) -> None:
    assert read("") == Settings()
    assert read("[server]\n[quotas]\n[engine]\n[limits]\n[scheduling]\n") == Settings()


def test_the_defaults_are_those_of_the_engine_but_for_frames_and_users() -> None:
    """A frame carries a little less than a message may have, and no user may take all instances."""
    settings = Settings()

    assert settings.server == ServerConfig()
    assert settings.state is State.DISK
    assert settings.models == ()
    limits = Limits(max_message_bytes=MAX_TEXT)
    assert settings.engine == EngineConfig(limits=limits, max_instances_per_user=1024)


def test_every_table_reaches_its_class(read: Read, tmp_path: Path) -> None:
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("")

    settings = read("""
        [server]
        host = "0.0.0.0"
        port = 0
        auth = "keys"
        tls_certificate = "certificate.pem"
        tls_key = "key.pem"
        allowed_origins = ["https://example.org", "http://localhost:3000"]
        blob_end_chunk = false
        grace_seconds = 0
        max_program_bytes = "1.5 MiB"

        [quotas]
        connections = 3
        launches_per_minute = 0.5
        stored_bytes = 1000
        instances = 7
        kv_pages = 8
        store_bytes = "2 KiB"

        [engine]
        seed = 11
        max_instances = 12
        state = "memory"

        [limits]
        cpu_seconds = 1
        max_message_bytes = 100

        [scheduling]
        step_tokens = 64
        prefill_slowdown = inf
        dispatch = "eager"

        [[model]]
        name = "smollm2-135m-instruct"

        [[model]]
        name = "hf:owner/name"
        dtype = "float32"
        pages = 100
        as = "large"
    """)

    assert settings == Settings(
        server=ServerConfig(
            host="0.0.0.0",
            port=0,
            auth=Auth.KEYS,
            tls_certificate=tmp_path / "certificate.pem",
            tls_key=tmp_path / "key.pem",
            allowed_origins=("https://example.org", "http://localhost:3000"),
            blob_end_chunk=False,
            grace_seconds=0.0,
            max_program_bytes=3 << 19,
            quotas=Quotas(connections=3, launches_per_minute=0.5, stored_bytes=1000),
        ),
        engine=EngineConfig(
            max_instances=12,
            max_instances_per_user=7,
            max_pages_per_user=8,
            max_store_bytes=2048,
            limits=Limits(cpu_seconds=1.0, max_message_bytes=100),
            scheduling=Scheduling(step_tokens=64, prefill_slowdown=math.inf, dispatch="eager"),
        ),
        state=State.MEMORY,
        seed=11,
        models=(
            ModelSettings(name="smollm2-135m-instruct"),
            ModelSettings(name="hf:owner/name", dtype="float32", pages=100, alias="large"),
        ),
    )
    assert isinstance(settings.server.auth, Auth)
    assert isinstance(settings.state, State)


def test_state_on_disk_is_in_the_folder_that_is_given(read: Read) -> None:
    folder = Path("/data/state")

    assert read('engine.state = "disk"').engine_with_state(folder).state_path == "/data/state"
    assert read('engine.state = "memory"').engine_with_state(folder).state_path is None


def test_paths_are_from_the_folder_of_the_file(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the server is started; a word without a slash is a model's name."""
    monkeypatch.setenv("HOME", "/home/ann")
    names = ["./folder", "model.gguf", "~/model.gguf", "/models/a", "word", "hf:a/b"]

    models = read("\n".join(f"[[model]]\nname = '{name}'" for name in names)).models

    assert [model.name for model in models] == [
        f"{tmp_path}/folder",
        f"{tmp_path}/model.gguf",
        "/home/ann/model.gguf",
        "/models/a",
        "word",
        "hf:a/b",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[sever]", "unknown table [sever]; did you mean server?"),
        (
            "[zebra]",
            "unknown table [zebra]; there are server, quotas, engine, limits, scheduling, model",
        ),
        ("port = 80", "port = 80: in no table; it belongs to [server]"),
        ("frob = 80", "frob = 80: in no table"),
        ("server = 80", "server = 80: a table is written as [server]"),
        ("[[server]]", "server = [{}]: a table is written as [server]"),
        ("[model]", "[model]: models are written as [[model]], each its own"),
        ("model = [1]", "[model]: models are written as [[model]], each its own"),
        ("[server]\nprot = 80", "[server] prot = 80: no such key; did you mean port?"),
        (
            "[engine]\nfrob = true",
            "[engine] frob = true: no such key; there are max_instances, state, seed",
        ),
        (
            "[limits]\nstep_tokens = 80",
            "[limits] step_tokens = 80: no such key; it belongs to [scheduling]",
        ),
        (
            "[server]\nport = 65536",
            "[server] port = 65536: it must be a whole number, from 0 to 65535",
        ),
        (
            '[server]\nport = "80"',
            '[server] port = "80": it must be a whole number, from 0 to 65535',
        ),
        (
            "[server]\nport = true",
            "[server] port = true: it must be a whole number, from 0 to 65535",
        ),
        (
            "[server]\nport = 80.0",
            "[server] port = 80.0: it must be a whole number, from 0 to 65535",
        ),
        ('[server]\nhost = ""', '[server] host = "": it must be a text'),
        ('[server]\nhost = "a\\nb"', "[server] host = 'a\\nb': it must be a text"),
        (
            '[server]\nauth = "key"',
            '[server] auth = "key": it must be one of "none", "keys"',
        ),
        ("[server]\nauth = 3", '[server] auth = 3: it must be one of "none", "keys"'),
        (
            "[server]\nblob_end_chunk = 1",
            "[server] blob_end_chunk = 1: it must be true or false",
        ),
        (
            '[server]\nallowed_origins = "*"',
            '[server] allowed_origins = "*": it must be a list of texts like '
            '"https://example.org", without a path',
        ),
        (
            '[server]\nallowed_origins = ["https://a.b/c"]',
            "[server] allowed_origins = ['https://a.b/c']: it must be a list of texts like "
            '"https://example.org", without a path',
        ),
        (
            "[server]\nlogin_seconds = 0",
            "[server] login_seconds = 0: it must be a number, above 0",
        ),
        (
            "[server]\nlogin_seconds = nan",
            "[server] login_seconds = nan: it must be a number, above 0",
        ),
        (
            "[quotas]\nmessages_per_second = inf",
            "[quotas] messages_per_second = inf: it must be a number, above 0",
        ),
        (
            "[quotas]\nconnections = 0",
            "[quotas] connections = 0: it must be a whole number, 1 or above",
        ),
        (
            "[quotas]\nconnections = 9223372036854775808",
            "[quotas] connections = 9223372036854775808: it must be a whole number, 1 or above",
        ),
        (
            "[quotas]\nkept_instances = -1",
            "[quotas] kept_instances = -1: it must be a whole number, 0 or above",
        ),
        (
            '[limits]\nmemory_bytes = "64 MB"',
            '[limits] memory_bytes = "64 MB": it must be a whole number of bytes or a text like '
            '"64 MiB" (units B, KiB, MiB, GiB, TiB), 1 or above',
        ),
        (
            '[limits]\nmemory_bytes = "0.3 KiB"',
            '[limits] memory_bytes = "0.3 KiB": it must be a whole number of bytes or a text like '
            '"64 MiB" (units B, KiB, MiB, GiB, TiB), 1 or above',
        ),
        (
            '[limits]\nmax_message_bytes = "1 MiB"',
            '[limits] max_message_bytes = "1 MiB": it must be a whole number of bytes or a text '
            f'like "64 MiB" (units B, KiB, MiB, GiB, TiB), from 1 to {MAX_TEXT}',
        ),
        (
            "[scheduling]\nprefill_slowdown = 1",
            "[scheduling] prefill_slowdown = 1: it must be a number, above 1, or inf",
        ),
        (
            '[scheduling]\ndispatch = "slow"',
            '[scheduling] dispatch = "slow": it must be a text, one of "gather", "eager", '
            '"fixed-size", "fixed-wait", "adaptive"',
        ),
        (
            '[engine]\nstate = "ram"',
            '[engine] state = "ram": it must be one of "disk", "memory"',
        ),
        ("[[model]]", "[[model]] number 1: name is missing"),
        (
            '[[model]]\nname = "a"\n[[model]]\ndtype = "auto"',
            "[[model]] number 2: name is missing",
        ),
        (
            '[[model]]\nname = "a"\ndtype = "int4"',
            '[[model]] dtype = "int4": it must be one of "auto", "float32", "bfloat16"',
        ),
        (
            '[[model]]\nname = "a"\nalias = "b"',
            '[[model]] alias = "b": no such key; there are name, dtype, kv, pages, as',
        ),
        (
            '[[model]]\nname = "a"\n[[model]]\nname = "b"\nas = "a"',
            '[[model]] "a" is there 2 times: tell them apart with as',
        ),
        ("[server\n", "not TOML: Expected ']' at the end of a table declaration (at line 1"),
        (f"[server]\nport = {'9' * 5000}", "not TOML: "),
        (
            f'[server]\nport = "{"9" * 5000}"',
            f'[server] port = "{"9" * 59}…: it must be a whole number, from 0 to 65535',
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_place_value_and_what_is_allowed(
    refuse: Refuse, text: str, reason: str
) -> None:
    shown = refuse(text)

    assert shown == reason or (reason.startswith("not TOML") and shown.startswith(reason))


def test_tls_needs_both_files(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("")

    assert refuse('[server]\ntls_key = "a.pem"') == (
        f'[server] tls_key = "{tmp_path}/a.pem": tls_certificate is missing'
    )
    assert refuse('[server]\ntls_key = "a.pem"\ntls_certificate = "/b.pem"') == (
        '[server] tls_certificate = "/b.pem": it must be a file that can be read'
    )


def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot read {path}: No such file or directory"):
        read_settings(path)

    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=f"{path}: not UTF-8 at byte 0"):
        read_settings(path)


@pytest.mark.parametrize("table", [table for table in TABLES if table != "model"])
@given(data=st.data())
def test_any_value_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, table: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    key = data.draw(st.sampled_from(sorted(TABLES[table])))
    value = data.draw(
        st.one_of(
            st.integers(-(2**64), 2**64).map(str),
            st.floats().map(str),
            st.sampled_from(['""', '"a"', "[]", "{}", "true", "1979-05-27", '"1 KiB"', "['a']"]),
        )
    )
    path.write_text(f"[{table}]\n{key} = {value}")
    try:
        settings = read_settings(path)
    except UsageError as error:
        text = str(error)
    else:
        text = ""
        assert isinstance(settings, Settings)

    assert "\n" not in text
    assert not text or f"[{table}] {key} = " in text


def test_every_default_is_a_value_that_may_be_written() -> None:
    """Or a file that only spells out the defaults would be refused."""
    for keys in TABLES.values():
        for key in keys.values():
            if not key.required and key.default is not None:
                default = key.default
                written = list(default) if isinstance(default, tuple) else default
                assert key.check(written) == default, key


def test_every_field_has_a_key() -> None:
    """A new field of a configuration class belongs in the file, or is left out on purpose."""
    left_out: set[tuple[type, str]] = {(ServerConfig, "quotas")}
    left_out |= {(EngineConfig, name) for name in ("limits", "scheduling", "state_path", "seed")}
    owners: tuple[type, ...] = (ServerConfig, Quotas, EngineConfig, Limits, Scheduling)
    fields = {(owner, field.name) for owner in owners for field in attrs.fields(owner)}

    known = {(key.owner, key.field) for keys in TABLES.values() for key in keys.values()}

    assert fields - left_out == {(owner, name) for owner, name in known if owner in owners}
