"""The commands and their options. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pie import __version__
from pie.collector import resting_collector

from .auth import auth
from .home import DEFAULT_MODEL, open_home
from .install import add_commands
from .server_commands import DType, serve, top

app = typer.Typer(
    help="A programmable LLM server: inferlets run beside the model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(
    help="Models that Pie keeps: GGUF files, and folders from Hugging Face, of Llama, Mistral, "
    "Qwen 2 and 3, Gemma 2 and 3, SmolLM2 and 3, OLMo 2 and 3.",
    no_args_is_help=True,
)
app.add_typer(models, name="model")
app.add_typer(auth, name="auth")
app.command()(serve)
app.command()(top)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pie {__version__}")
        raise typer.Exit


@app.callback()
def pie(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """A programmable LLM server: inferlets run beside the model.

    Everything is kept in $PIE_HOME. Without it, models, built inferlets and compiled code are in
    $XDG_CACHE_HOME/pie, else ~/.cache/pie, and what must outlive a cleared cache (users, settings,
    state) in $XDG_DATA_HOME/pie, else ~/.local/share/pie.
    """


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with an app.py.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.wasm")],
) -> int:
    """Make a WebAssembly component of an inferlet's folder."""
    from .building import build_inferlet

    return build_inferlet(folder, output)


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR|FILE.wasm",
            help="An inferlet of the library, a folder with an app.py, or a component.",
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGS", help="What the inferlet gets as its arguments."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A known name, a GGUF file or a folder.")
    ] = DEFAULT_MODEL,
    dtype: Annotated[
        DType, typer.Option(help="float32 is the bit-exact reference, auto the fastest.")
    ] = DType.AUTO,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the instance. Without it, each run gives the same again."),
    ] = None,
    send: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A message, before the lines of stdin; repeatable."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Figures of the run on stderr.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Write a timeline for ui.perfetto.dev, and a record for `pie replay`.",
        ),
    ] = None,
) -> int:
    """Run an inferlet and show what it prints, sends and returns.

    Its stdout and its messages (a line each) go to stdout, its stderr to stderr. Lines of stdin
    are messages to it. The return value is the last line, unless its stdout ended with the same
    text. Exit code 1: it failed, with the reason on stderr.
    """
    with resting_collector():
        from .run import Options, run_command

        options = Options(
            target=target,
            arguments=tuple(arguments or ()),
            model=model,
            dtype=dtype.value,
            seed=seed,
            sends=tuple(send or ()),
            json=json,
            stats=stats,
            trace=trace,
        )
        return run_command(options, open_home())


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="What `pie run --trace` has written.")
    ],
    machine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A simulated one: H100, H200, A100, L4, laptop. Without it: one with the step "
            "times of the record.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The model on that machine. [llama-3-8b]"),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="How batches are started.")
    ] = None,
    step_tokens: Annotated[list[int] | None, typer.Option(help="Rows of one step.")] = None,
    pages: Annotated[list[int] | None, typer.Option(help="KV pages of the model.")] = None,
    host_pages: Annotated[
        list[int] | None, typer.Option(help="KV pages that may be in host memory.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Of the order of tasks, and of jitter.")
    ] = None,
    jitter: Annotated[
        list[float] | None,
        typer.Option(help="Steps take up to this fraction more, drawn from the seed."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Run a trace again, with no model and no inferlet, and show what is different.

    What inferlets asked of the scheduler, in which order and after which pauses, is that of the
    record; when it is answered is up to the scheduler and a simulated machine. An option given
    twice compares two settings.
    """
    from .replay import Options, replay_command, settings_of

    settings = settings_of(
        machine=machine or (),
        shape=shape or (),
        policy=policy or (),
        step_tokens=step_tokens or (),
        pages=pages or (),
        host_pages=host_pages or (),
        seed=seed or (),
        jitter=jitter or (),
    )
    return replay_command(Options(file=file, settings=settings, json=json))


add_commands(app)


@models.command("list")
def list_models() -> int:
    """Show the models that can be named, and which of them are here."""
    from .model import show_models

    return show_models(open_home())


@models.command("pull")
def pull_model(name: Annotated[str, typer.Argument(metavar="NAME")]) -> int:
    """Fetch a model: a name of `pie model list`, or hf:OWNER/NAME."""
    from .model import pull_model

    return pull_model(name, open_home())


@models.command("path")
def model_path(name: Annotated[str, typer.Argument(metavar="NAME")]) -> int:
    """Show where a model is."""
    from .model import show_path

    return show_path(name, open_home())


@app.command("sim")
def simulate(
    seeds: Annotated[
        str, typer.Option(metavar="A..B", help="A seed, or all from A to B.")
    ] = "0..99",
    scenario: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="One that comes with Pie, or a .toml file.")
    ] = "mixed",
    log: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where to write all events.")
    ] = None,
    threads: Annotated[
        bool, typer.Option("--threads", help="Real threads and real time: not reproducible.")
    ] = False,
) -> int:
    """Run simulated guests on simulated machines, each run decided by one seed.

    Checks after every event that the engine's books are right, and at the end that every guest
    got what it gets alone. Exit code 1: a seed failed; how to replay it is on stderr.
    """
    from .sim import Options, simulate

    return simulate(Options(seeds=seeds, scenario=scenario, log=log, threads=threads))


@app.command()
def doctor() -> int:
    """Check this machine and this installation; exit code 1 if something needed is broken."""
    from .doctor import examine

    return examine(open_home())
