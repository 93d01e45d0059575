"""What a server says about itself over HTTP, and who may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pie.server.app import make_app
from pie.server.authentication import Authentication
from pie.server.config import Auth, ServerConfig
from pie.server.users import Users

from .live import Live, events, keep_probe, live_server
from .published_client import published

pytestmark = pytest.mark.slow


async def get(live: Live, path: str, **headers: str) -> httpx.Response:
    def get() -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{live.serving.port}{path}", headers=headers)

    return await trio.to_thread.run_sync(get)


async def _figures(live: Live) -> dict[str, float]:
    """Every sample, by its name and labels."""
    page = await get(live, "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


async def test_metrics_are_what_was_done(tmp_path: Path) -> None:
    async def work() -> None:
        async with published("0.2.1").PieClient(live.uri) as client:
            await client.authenticate("ann")
            await events(await client.launch_instance(name, ["generate", "12"]))
            with pytest.raises(Exception, match="no program"):
                await client.launch_instance("0" * 64)
            await client.launch_instance(name, ["wait"], detached=True)

    async with live_server(tmp_path) as live:
        name = await keep_probe(live, "ann")
        before = await _figures(live)
        await live.run(work)
        after = await _figures(live)

        def gained(sample: str) -> float:
            return after[sample] - before.get(sample, 0.0)

        assert gained("pie_sampled_tokens_total['simulated']") == 12
        assert gained("pie_launches_total[]") == 2
        assert gained("pie_ended_instances_total['completed']") == 1
        assert after["pie_instances['detached']"] == 1
        assert after["pie_launch_seconds_count[]"] == 2


async def test_instances_are_listed_for_people(tmp_path: Path) -> None:
    async def work() -> str:
        async with published("0.2.1").PieClient(live.uri) as client:
            await client.authenticate("ann")
            instance = await client.launch_instance(name, ["wait"], detached=True)
            uuid: str = instance.instance_id
            return uuid

    async with live_server(tmp_path) as live:
        name = await keep_probe(live, "ann")
        uuid = await live.run(work)
        (row,) = (await get(live, "/v1/instances")).json()["instances"]
        assert (row["uuid"], row["user"], row["status"]) == (uuid, "ann", "Detached")
        table = (await get(live, "/v1/instances", Accept="text/plain")).text
        assert uuid in table
        assert "ann" in table


async def test_health_is_told_to_everybody_and_the_rest_needs_the_token(tmp_path: Path) -> None:
    """Where clients prove who they are, so does whoever looks at them."""
    checking = Authentication(Auth.KEYS, Users(tmp_path / "users"))
    async with live_server(tmp_path, authentication=checking) as live:
        health = await get(live, "/healthz")
        assert (health.status_code, health.json()["healthy"]) == (200, True)
        token = f"Bearer {checking.token}"
        for path in ("/metrics", "/v1/instances"):
            assert (await get(live, path)).status_code == 401
            assert (await get(live, path, Authorization="Bearer wrong")).status_code == 401
            assert (await get(live, path, Authorization=token)).status_code == 200


async def test_a_server_that_drains_is_not_healthy(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        live.server.draining = True
        health = await get(live, "/healthz")
        assert health.status_code == 503
        assert health.json()["draining"]


async def test_pages_of_other_origins_may_not_connect(tmp_path: Path) -> None:
    """A web page can open a WebSocket to loopback; a browser says which page it is."""

    async def come(origin: str) -> int:
        try:
            async with connect(live.uri, origin=origin):  # type: ignore[arg-type]
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    config = ServerConfig(allowed_origins=("https://mine.example",))
    async with live_server(tmp_path, config=config) as live:
        assert await live.run(lambda: come("https://evil.example")) == 403
        assert await live.run(lambda: come("https://mine.example")) == 101


async def test_whoever_looks_with_a_browser_is_told_what_there_is(tmp_path: Path) -> None:
    async with live_server(tmp_path) as live:
        assert "/healthz" in (await get(live, "/")).text
        # A place for WebSockets, and no other.
        assert (await get(live, "/etc/passwd")).status_code == 400


async def test_the_application_runs_under_another_asgi_server(tmp_path: Path) -> None:
    """Hypercorn as it is, without what our own connections add."""

    async def scenario() -> None:
        async with published("0.2.1").PieClient(uri) as client:
            await client.authenticate("ann")
            heard = await events(await client.launch_instance(name, ["say", "hello"]))
            assert heard[-1] == ("Completed", "hello")

    async with live_server(tmp_path) as live, trio.open_nursery() as nursery:
        name = await keep_probe(live, "ann")
        config = Config()
        config.bind = ["127.0.0.1:0"]
        app: Any = make_app(live.server)
        (place,) = await nursery.start(serve, app, config)
        uri = place.replace("http://", "ws://")
        await live.run(scenario)
        nursery.cancel_scope.cancel()
