"""The commands of a server, and their options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .home import open_home


class DType(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"


def serve(
    settings: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.toml", help="Settings. [config.toml of the data]"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="0: any free one. [8080]")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|PATH", help="Instead of the models in the settings."),
    ] = None,
    dtype: Annotated[DType | None, typer.Option(help="Of all models.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> int:
    """Serve models to clients, by the protocol of the published ones.

    Without settings: the default model on loopback, where names are not proven. SIGTERM and Ctrl-C
    let instances end within a grace period, tell all clients, and exit with 0; a second one does
    not wait. Logs go to stderr.
    """
    from .serve import Options, serve_command

    options = Options(
        settings=settings,
        host=host,
        port=port,
        models=tuple(model or ()),
        dtype=None if dtype is None else dtype.value,
        log_json=log_json,
        verbose=verbose,
    )
    return serve_command(options, open_home())


def top(
    url: Annotated[str, typer.Option(help="Of the server.")] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With the server's token. [that of this machine's server]"
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame; exit code 1 if all is not well.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="From one look to the next.")
    ] = 2.0,
) -> int:
    """Show what a running server is doing. Leave with q."""
    from .top import Options, top_command

    options = Options(url=url, token_file=token_file, once=once, interval=interval)
    return top_command(options, open_home())
