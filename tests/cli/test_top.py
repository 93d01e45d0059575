"""`pie top`: frames of recorded pages, and a server of such pages that is looked at."""

from __future__ import annotations

import io
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import httpx
import pytest
from rich.console import Console

from pie.cli import frames
from pie.cli.frames import duration, frame, gone, number
from pie.cli.home import open_home
from pie.cli.scrapes import Scrape, Span, percentile
from pie.cli.top import token_header
from pie.server.catalogue import ENTRIES

from .conftest import Ran
from .recording import Pages, record
from .support import COMMAND
from .terminal import on_a_terminal

URL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def recorded() -> list[Pages]:
    """After one second of decoding, and after three; without what is of the test's process."""
    return [
        attrs.evolve(pages, metrics=re.sub(r"(?m)^process_.*\n", "", pages.metrics))
        for pages in record(1.0, 3.0)
    ]


def shown(before: Scrape, after: Scrape, *, rows: int = 5, width: int = 100) -> list[str]:
    """Lines of a frame."""
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(frame(URL, Span(before, after), rows=rows))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_frame_shows_what_happened_between_two_looks(recorded: list[Pages]) -> None:
    before, after = recorded

    assert shown(before.scrape(), after.scrape(), rows=2) == [
        "pie 0.1.0  http://127.0.0.1:8080  healthy",
        "2 clients; instances: 2 attached, 1 detached, 0 finished",
        "0 launches/s, 1.5 refusals/s, 0 protocol errors/s; loop late p95 0.1 ms",
        "",
        "small  busy",
        "  398 tokens/s, 4 rows/step, step p50 11.0 ms p95 11.9 ms, busy 100 %",
        "  4 passes queued, wait p95 0.1 ms; 0 requests wait for memory",
        "  pages ###..................... 8 of 64",
        "",
        "oldest    program         user  status       age  pages  queued",
        "f3b0a3a4  [red]beam\ufffd[31m  bob   Detached  66 min      0       0",
        "9a3df1f0  tree            ann   Attached  90.0 s     40       0",
        "",
        "biggest   program          user  status       age  pages  queued",
        "9a3df1f0  tree             ann   Attached  90.0 s     40       0",
        "0b7c6d0e  text-completion  ann   Attached   7.5 s      2       1",
    ]


def test_the_first_look_has_no_rates(recorded: list[Pages]) -> None:
    scrape = recorded[0].scrape()
    lines = shown(scrape, scrape)

    assert "  - tokens/s, - rows/step, step p50 - p95 -, busy -" in lines
    assert "  4 passes queued, wait p95 -; 0 requests wait for memory" in lines


def test_a_server_that_has_begun_anew_has_no_rates_until_the_next_look(
    recorded: list[Pages],
) -> None:
    before, after = recorded

    assert "  - tokens/s, - rows/step, step p50 - p95 -, busy -" in shown(
        after.scrape(), attrs.evolve(before, at=5.0).scrape()
    )


def test_what_is_wrong_comes_first(recorded: list[Pages]) -> None:
    health = b"""{"healthy": false, "reasons": ["model small is \\u001b[2J", "draining"],
        "models": {"small": {"state": "stalled", "queued": 3}}, "more": 1}"""
    before, after = (attrs.evolve(pages, health=health).scrape() for pages in recorded)
    lines = shown(before, after)

    assert lines[1:3] == ["unhealthy: model small is \ufffd[2J", "unhealthy: draining"]
    assert "small  stalled" in lines


def test_pages_in_host_memory_are_told_of(recorded: list[Pages]) -> None:
    before, after = recorded
    text = after.metrics.replace(
        'pie_moved_pages_total{model="small"} 0.0', 'pie_moved_pages_total{model="small"} 6.0'
    ).replace(
        'pie_host_pages{model="small",state="used"} 0.0',
        'pie_host_pages{model="small",state="used"} 5.0',
    )
    lines = shown(before.scrape(), attrs.evolve(after, metrics=text).scrape())

    assert "  pages ###..................... 8 of 64, 5 in host memory (3/s)" in lines


def test_a_narrow_screen_cuts_names_short_and_keeps_figures(recorded: list[Pages]) -> None:
    before, after = (pages.scrape() for pages in recorded)

    assert max(map(len, shown(before, after, width=60))) <= 60
    assert shown(before, after, width=60)[-1].endswith("7.5 s      2       1")


@pytest.mark.parametrize(
    ("part", "counts", "value"),
    [
        (0.5, [], None),
        (0.5, [(1.0, 0.0), (float("inf"), 0.0)], None),
        (0.5, [(1.0, 0.0), (2.0, 10.0), (float("inf"), 10.0)], 1.5),
        (0.9, [(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)], 1.8),
        (0.5, [(1.0, 10.0), (2.0, 10.0), (float("inf"), 10.0)], 0.5),
        (0.95, [(1.0, 1.0), (2.0, 1.0), (float("inf"), 10.0)], 2.0),
        (1.0, [(1.0, 1.0), (2.0, 3.0), (float("inf"), 3.0)], 2.0),
    ],
)
def test_percentiles_of_buckets(
    part: float, counts: list[tuple[float, float]], value: float | None
) -> None:
    assert percentile(part, counts) == pytest.approx(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.00005, "0.1 ms"),
        (0.0102, "10.2 ms"),
        (0.25, "250 ms"),
        (1.25, "1.2 s"),
        (119.96, "120.0 s"),
        (121, "2 min"),
        (7300, "2 h 1 min"),
        (200_000, "2 d"),
    ],
)
def test_durations_in_the_unit_that_fits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.25, "0.2"), (99.96, "100.0"), (12345.6, "12,346")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


# ------------------------------------------------------------------------- a server


@attrs.define
class Fake:
    """Serves recorded pages on loopback, one look after the other."""

    answers: Mapping[str, tuple[int, bytes]]
    port: int = 0
    token: str = ""
    looks: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def answers_of(pages: Pages, *, health: int = 200) -> dict[str, tuple[int, bytes]]:
    return {
        "/healthz": (health, pages.health),
        "/metrics": (200, pages.metrics.encode()),
        "/v1/instances": (200, pages.listing),
    }


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = fake.answers.get(self.path, (404, b"nothing here"))
            if fake.token and self.headers["Authorization"] != f"Bearer {fake.token}":
                code, body = 401, b"no"
            fake.looks += self.path == "/metrics"
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", fake.port), Handler) as server:
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


Run = Callable[..., Ran]
ONCE = ("--once", "--interval", "0.1")


@pytest.mark.slow
def test_one_frame_of_a_healthy_server(recorded: list[Pages], pie: Run, home: Path) -> None:
    with serving(Fake(answers_of(recorded[1]))) as fake:
        ran = pie("top", "--url", f"{fake.url}/", *ONCE)

    assert (ran.code, ran.err, fake.looks) == (0, "", 2)
    assert ran.out.splitlines()[0] == f"pie 0.1.0  {fake.url}  healthy"
    assert "\x1b" not in ran.out


@pytest.mark.slow
def test_one_frame_of_an_unhealthy_server_is_a_failure(
    recorded: list[Pages], pie: Run, home: Path
) -> None:
    health = b'{"healthy": false, "reasons": ["draining"], "models": {}}'
    pages = attrs.evolve(recorded[1], health=health)
    with serving(Fake(answers_of(pages, health=503))) as fake:
        ran = pie("top", "--url", fake.url, *ONCE)

    assert (ran.code, ran.err) == (1, "")
    assert "unhealthy: draining" in ran.out


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_a_failure(pie: Run, home: Path) -> None:
    with serving(Fake({})) as fake:
        pass
    ran = pie("top", "--url", fake.url, *ONCE)

    assert (ran.code, ran.out) == (1, "")
    assert re.fullmatch(rf"pie: no answer from {fake.url}: [^\n]+\n", ran.err)


HTML = (200, b"<html>welcome</html>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"/healthz": (404, b"")}, "/healthz gives 404 Not Found"),
        ({"/healthz": HTML}, "it does not answer as a Pie server does"),
        ({"/metrics": HTML}, "it does not answer as a Pie server does"),
        ({"/metrics": (503, b"")}, "/metrics gives 503 Service Unavailable"),
        ({"/v1/instances": (200, b'{"instances": [{"uuid": 1}]}')}, "it does not answer as"),
        ({"/v1/instances": (302, b"")}, "/v1/instances gives 302 Found"),
    ],
)
def test_something_else_that_answers_is_no_server(
    wrong: Mapping[str, tuple[int, bytes]],
    reason: str,
    recorded: list[Pages],
    pie: Run,
    home: Path,
) -> None:
    with serving(Fake({**answers_of(recorded[1]), **wrong})) as fake:
        ran = pie("top", "--url", fake.url, *ONCE)

    assert (ran.code, ran.out) == (1, "")
    assert reason in ran.err


@pytest.mark.slow
def test_the_token_of_this_machine_s_server_is_used(
    recorded: list[Pages], pie: Run, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "token"
    other.write_text("another\n")
    with serving(Fake(answers_of(recorded[1]), token="secret")) as fake:
        without = pie("top", "--url", fake.url, *ONCE)
        (home / "internal_token").write_text("secret\n")
        own = pie("top", "--url", fake.url, *ONCE)
        wrong = pie("top", "--url", fake.url, "--token-file", other, *ONCE)

    assert [without.code, own.code, wrong.code] == [1, 0, 1]
    assert "wants a token, or another one (--token-file)" in without.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--url", "localhost:8080"], "'localhost:8080' is not a URL like http://127.0.0.1:8080"),
        (["--url", "http://[::1"], "'http://[::1' is not a URL"),
        (["--url", "ws://127.0.0.1"], "is not a URL like"),
        (["--token-file", "/nowhere/token"], "cannot read the token in /nowhere/token: "),
        (["--token-file", __file__], "holds no token: one is a line of ASCII"),
        ([], "stdout is not a terminal that can be drawn on: --once prints one frame"),
        (["--interval", "0"], "--interval"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], error: str, pie: Run, home: Path) -> None:
    ran = pie("top", *arguments)

    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert error in ran.err


def test_the_token_is_for_this_machine_s_servers_only(home: Path) -> None:
    """What is on it may be read on the way, and whoever answers there has no business with it."""
    opened = open_home()
    opened.token.write_text("secret\n")
    sent = {
        url: token_header(None, httpx.URL(url), opened)
        for url in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "http://a.example")
    }
    assert [bool(headers) for headers in sent.values()] == [True, True, True, False]
    assert token_header(opened.token, httpx.URL("https://a.example"), opened) == {
        "Authorization": "Bearer secret"
    }


# ----------------------------------------------------------------------- a terminal


@pytest.mark.slow
@pytest.mark.parametrize("key", ["q", "\x03"])
def test_it_is_left_with_a_key(key: str, recorded: list[Pages], home: Path) -> None:
    with (
        serving(Fake(answers_of(recorded[1]))) as fake,
        on_a_terminal(*COMMAND, "top", "--url", fake.url, "--interval", "0.1", home=home) as screen,
    ):
        screen.read_until("biggest")
        begun, screen.seen = screen.seen, ""
        screen.type("x")
        screen.read_until("biggest")
        screen.type(key)
        assert screen.end() == 0

    assert begun.count("\x1b[?1049h") == screen.seen.count("\x1b[?1049l") == 1
    assert "Traceback" not in screen.seen


@pytest.mark.slow
def test_a_terminal_is_left_as_it_was_by_a_signal(recorded: list[Pages], home: Path) -> None:
    with (
        serving(Fake(answers_of(recorded[1]))) as fake,
        on_a_terminal(*COMMAND, "top", "--url", fake.url, "--interval", "0.1", home=home) as screen,
    ):
        screen.read_until("biggest")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 128 + signal.SIGTERM

    assert "\x1b[?1049l" in screen.seen


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back(recorded: list[Pages], home: Path) -> None:
    fake = Fake(answers_of(recorded[1]))
    with serving(fake):
        pass
    with on_a_terminal(
        *COMMAND, "top", "--url", fake.url, "--interval", "0.1", home=home
    ) as screen:
        screen.read_until("no answer from")
        for _ in range(2):
            with serving(fake):
                screen.seen = ""
                screen.read_until("biggest")
            screen.seen = ""
            screen.read_until("trying again")
        screen.type("q")
        assert screen.end() == 0


def test_every_metric_that_is_shown_is_one_that_servers_have() -> None:
    """A metric that is not there reads as 0, so a wrong name would never be noticed."""
    source = Path(frames.__file__).read_text()
    used = set(re.findall(r"pie_\w+", source))

    assert len(used) > 10
    assert used <= {entry.name for entry in ENTRIES}


def test_the_news_of_a_server_that_is_gone_cannot_colour_the_screen() -> None:
    assert gone(URL, "a\x1b[2Jb").plain == f"no answer from {URL}: a\ufffd[2Jb"
