"""What `pie top` shows of a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pie.server.listing import InstanceRow, printable

from .scrapes import Scrape, Span

BAR = 24
COLOURS = {"idle": "dim", "busy": "green", "stalled": "bold red", "failing": "bold red"}


def frame(url: str, span: Span, *, rows: int) -> RenderableType:
    """A server between two looks at it, with at most so many instances by age and by size."""
    scrape = span.after
    models = [model_block(name, span) for name in scrape.label("pie_pages_peak", "model")]
    by_age = sorted(scrape.instances, key=lambda row: -row.seconds)
    by_size = sorted((row for row in scrape.instances if row.pages), key=lambda row: -row.pages)
    tables = [
        part
        for title, chosen in (("oldest", by_age), ("biggest", by_size))
        if chosen
        for part in (Text(), instances(title, chosen[:rows]))
    ]
    return Group(heading(url, scrape), traffic(span), *models, *tables)


def gone(url: str, problem: str) -> Text:
    """The server does not answer."""
    return Text.assemble((f"no answer from {printable(url)}: {printable(problem)}", "bold red"))


def heading(url: str, scrape: Scrape) -> Text:
    """Which server, and whether it is well."""
    version = next(iter(scrape.label("pie_build_info", "version")), "?")
    text = Text(f"pie {printable(version)}  {printable(url)}")
    started = scrape.value("process_start_time_seconds")
    if started:
        text.append(f"  up {duration(max(0.0, time.time() - started))}")
    if scrape.health.healthy:
        return text.append("  healthy", "bold green")
    for reason in scrape.health.reasons:
        text.append(f"\nunhealthy: {printable(reason)}", "bold red")
    return text


def traffic(span: Span) -> Text:
    """Clients and instances."""
    after = span.after
    counts = ", ".join(
        f"{after.value('pie_instances', status=status):.0f} {status}"
        for status in ("attached", "detached", "finished")
    )
    late = span.percentile(0.95, "pie_loop_late_seconds")
    return Text(
        f"{after.value('pie_connections'):.0f} clients; instances: {counts}\n"
        f"{number(span.rate('pie_launches_total'))} launches/s, "
        f"{number(span.rate_of_all('pie_refusals_total'))} refusals/s, "
        f"{number(span.rate('pie_protocol_errors_total'))} protocol errors/s; "
        f"loop late p95 {duration(late)}"
    )


def model_block(model: str, span: Span) -> Text:
    """How fast a model is, and how full."""
    after = span.after
    known = after.health.models.get(model)
    state = known.state if known else ""
    text = Text.assemble(
        "\n", (printable(model), "bold"), "  ", (printable(state), COLOURS.get(state, ""))
    )
    text.append(
        f"\n  {number(span.rate('pie_sampled_tokens_total', model=model))} tokens/s, "
        f"{number(span.mean('pie_step_rows', model=model))} rows/step, "
        f"step p50 {duration(span.percentile(0.5, 'pie_step_seconds', model=model))} "
        f"p95 {duration(span.percentile(0.95, 'pie_step_seconds', model=model))}, "
        f"busy {share(span.rate('pie_busy_seconds_total', model=model))}"
        f"\n  {after.value('pie_queued_passes', model=model):.0f} passes queued, "
        f"wait p95 {duration(span.percentile(0.95, 'pie_pass_queue_seconds', model=model))}; "
        f"{after.value('pie_waiting_requests', model=model):.0f} requests wait for memory"
        "\n  pages "
    )
    for piece in pages(model, span):
        text.append_text(piece)
    return text


def pages(model: str, span: Span) -> Iterator[Text]:
    """A bar, and what of the pages is in host memory."""
    after = span.after
    used = after.value("pie_pages", model=model, state="used")
    total = used + after.value("pie_pages", model=model, state="free")
    full = round(BAR * used / total) if total else 0
    colour = "red" if used > 0.95 * total else "green"
    yield Text("#" * full, colour)
    yield Text("." * (BAR - full), "dim")
    host = after.value("pie_host_pages", model=model, state="used")
    moved = span.rate("pie_moved_pages_total", model=model)
    away = f", {host:.0f} in host memory ({number(moved)}/s)" if host or moved else ""
    yield Text(f" {used:.0f} of {total:.0f}{away}")


def instances(title: str, rows: Sequence[InstanceRow]) -> Table:
    """Some of the instances."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(title, no_wrap=True)
    # Where it gets narrow these are cut short, and the others last.
    table.add_column("program", max_width=28)
    table.add_column("user", max_width=16)
    table.add_column("status", no_wrap=True)
    for heading in ("age", "pages", "queued"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        texts = (row.uuid[:8], row.program, row.user, row.status)
        figures = (duration(row.seconds), str(row.pages), str(row.queued))
        # Not as strings, in which rich would look for markup.
        table.add_row(*(_line(each) for each in (*texts, *figures)))
    return table


def _line(text: str) -> Text:
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def duration(seconds: float | None) -> str:
    """In the unit that fits."""
    if seconds is None:
        return "-"
    if seconds < 1:
        milliseconds = 1000 * seconds
        return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} d"
