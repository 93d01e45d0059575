"""Keys, TLS and quotas, end to end through the published clients."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

from pie.config import EngineConfig
from pie.server.authentication import DISABLED, Authentication
from pie.server.config import Auth, Quotas, ServerConfig
from pie.server.users import Users
from pie.server.users_edit import add_key

from .keys import KINDS, openssh, secret
from .live import LIMITS, events, keep_probe, live_server
from .published_client import VERSIONS, published

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_keys_of_every_kind_open_the_door(version: str, kind: str, tmp_path: Path) -> None:
    package = published(version)
    path = tmp_path / "users"
    add_key(path, "ann", openssh(kind), "laptop")

    async def scenario() -> None:
        async with package.PieClient(live.uri) as client:
            await client.authenticate("ann", package.ParsedPrivateKey.parse(secret(kind)))
            instance = await client.launch_instance(name, ["say", "hello"])
            assert (await events(instance))[-1] == ("Completed", "hello")

    async with live_server(tmp_path, authentication=Authentication(Auth.KEYS, Users(path))) as live:
        name = await keep_probe(live, "ann")
        await live.run(scenario)


async def test_nobody_else_comes_in(tmp_path: Path) -> None:
    """Neither with a wrong key nor under a name that is not there: they get the same answer."""
    package = published("0.2.1")
    path = tmp_path / "users"
    add_key(path, "ann", openssh("Ed25519"), "laptop")

    async def fails(user: str, key: Any) -> None:
        async with package.PieClient(live.uri) as client:
            with pytest.raises(Exception, match="Signature verification failed"):
                await client.authenticate(user, key)
            await asyncio.wait_for(client.ws.wait_closed(), 30)

    async def scenario() -> None:
        right = package.ParsedPrivateKey.parse(secret("Ed25519"))
        wrong = package.ParsedPrivateKey.parse(secret("Ed25519", 1))
        await asyncio.gather(fails("ann", wrong), fails("bob", right))
        async with package.PieClient(live.uri) as client:
            with pytest.raises(Exception, match="requires public key"):
                await client.authenticate("ann")
        async with package.PieClient(live.uri) as client:
            successful, text = await client.identify("internal")
            assert not successful
            assert "the server's own" in text

    async with live_server(tmp_path, authentication=Authentication(Auth.KEYS, Users(path))) as live:
        await live.run(scenario)


def _certificate(folder: Path) -> ServerConfig:
    """A certificate for loopback that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pie")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ServerConfig(tls_certificate=folder / "cert.pem", tls_key=folder / "key.pem")


async def test_tls(tmp_path: Path) -> None:
    """A session goes through TLS; whoever speaks plainly to the port is not heard."""
    config = _certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    async def scenario() -> None:
        client = published("0.2.1").PieClient("unused")
        uri = live.uri.replace("ws://", "wss://")
        async with connect(uri, ssl=trusted) as client.ws:
            listening = asyncio.create_task(client._listen_to_server())
            await client.authenticate("ann")
            instance = await client.launch_instance(name, ["mirror"])
            await instance.upload_blob(b"x" * 1_000_000)
            assert (await events(instance))[-1] == ("Completed", "1000000")
        await listening
        with pytest.raises(Exception, match=r".+"):
            async with connect(live.uri):
                pass

    async with live_server(tmp_path, config=config) as live:
        name = await keep_probe(live, "ann")
        await live.run(scenario)


Request = Callable[[Any, str], Awaitable[Any]]


async def _twice(client: Any, name: str) -> None:
    for _ in range(2):
        await client.launch_instance(name, ["wait"], detached=True)


async def _upload(client: Any, name: str) -> None:
    with pytest.raises(Exception, match="WebAssembly"):
        await client.upload_program(b"no program")
    await client.upload_program(b"nor is this")


async def _large(client: Any, name: str) -> None:
    await client.upload_program(b"x" * 600_000)


async def _blob(client: Any, name: str) -> None:
    instance = await client.launch_instance(name, ["mirror"])
    await instance.upload_blob(b"x" * 600_000)


async def _ping(client: Any, name: str) -> None:
    for _ in range(3):
        await client.ping()


@pytest.mark.parametrize(
    ("config", "engine", "request_", "refusal"),
    [
        ({}, {"max_instances_per_user": 1}, _twice, "1 instances of user 'ann' are running"),
        ({}, {"max_instances": 1}, _twice, "1 instances are running, the limit"),
        ({"launches_per_minute": 1.0}, {}, _twice, "quota launches_per_minute: at most 1 a minute"),
        ({"uploads_per_minute": 1.0}, {}, _upload, "quota uploads_per_minute"),
        ({"messages_per_second": 0.1, "message_burst": 2}, {}, _ping, "quota messages_per_second"),
        ({"max_program_bytes": 1 << 18}, {}, _large, "exceed the limit of 262144 bytes"),
        ({"max_blob_bytes": 1 << 18}, {}, _blob, "exceed the limit of 262144 bytes"),
        ({"max_uploading_bytes": 1 << 18}, {}, _large, "unfinished uploads of all clients hold"),
    ],
)
async def test_what_is_refused_has_a_number(
    config: dict[str, Any],
    engine: dict[str, Any],
    request_: Request,
    refusal: str,
    tmp_path: Path,
) -> None:
    quotas = {key: config[key] for key in config if key in attrs.fields_dict(Quotas)}
    rest = {key: config[key] for key in config if key not in quotas}

    async def scenario() -> None:
        async with published("0.2.1").PieClient(live.uri) as client:
            await client.authenticate("ann")
            with pytest.raises(Exception, match=refusal):
                await request_(client, name)

    async with live_server(
        tmp_path,
        config=ServerConfig(quotas=Quotas(**quotas), **rest),
        engine=EngineConfig(limits=LIMITS, **engine),
    ) as live:
        name = await keep_probe(live, "ann")
        await live.run(scenario)


async def test_a_user_has_so_many_kv_pages(tmp_path: Path) -> None:
    """Beyond it the guest ends with both numbers, and another user's does not."""

    async def scenario() -> None:
        for user, kind in (("ann", "Exception"), ("bob", "Completed")):
            async with published("0.2.1").PieClient(live.uri) as client:
                await client.authenticate(user)
                instance = await client.launch_instance(name, ["generate", sizes[user]])
                heard = await events(instance)
                assert heard[-1][0] == kind
                assert kind == "Completed" or "max_pages_per_user" in heard[-1][1]

    sizes = {"ann": "60", "bob": "10"}
    engine = EngineConfig(limits=LIMITS, max_pages_per_user=2)
    async with live_server(tmp_path, engine=engine) as live:
        for user in sizes:
            name = await keep_probe(live, user)
        await live.run(scenario)


async def test_auth_off_is_said_in_the_words_that_clients_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with published("0.2.0").PieClient(live.uri) as client:
            assert await client.identify("ann") == (True, DISABLED)

    async with live_server(tmp_path) as live:
        await live.run(scenario)
