"""The command line: parse, call one verb of the project, show. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from homeostat.commands.alerts import alerts
from homeostat.commands.experiment import experiment, token
from homeostat.commands.feedback import feedback
from homeostat.commands.monitor import monitor
from homeostat.commands.options import EXIT, HERE, Folder, Json, Reason
from homeostat.commands.options import length as _length
from homeostat.commands.options import opened as _open
from homeostat.commands.options import show as _show
from homeostat.commands.options import time as _time
from homeostat.commands.predict import predict
from homeostat.commands.release import release
from homeostat.domain.errors import HomeostatError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From notebook to production, and healthy there: the whole loop of a machine-learning model.",
)
app.add_typer(release, name="release")
app.add_typer(monitor, name="monitor")
export = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What leaves the project.")
app.add_typer(export, name="export")
app.add_typer(experiment, name="experiment")
app.add_typer(token, name="token")
app.add_typer(feedback, name="feedback")
app.add_typer(alerts, name="alerts")


def _workers(text: str) -> tuple[int, int]:
    from homeostat.domain.units import workers

    bounds = workers(text)
    if not isinstance(bounds, tuple):
        raise typer.BadParameter(f"{text!r} is not a number of workers: write auto, 2, or 1-4", param_hint="--workers")
    return bounds


class Repeated(StrEnum):
    """What `init` does with rows that have the same time."""

    REFUSE = "refuse"
    ALLOW = "allow"


Port = Annotated[int, typer.Option(min=1, max=65_534, help="The port to listen on.")]
GrpcPort = Annotated[
    int | None, typer.Option(min=1, max=65_535, help="Also speak gRPC, on this port. [default: HTTP alone]")
]
Host = Annotated[str, typer.Option(help="The address to listen on. Beyond loopback there is no access control yet.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    data: Annotated[Path, typer.Option(help="A CSV or Parquet file; it is only read.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    time: Annotated[str, typer.Option(help='The time column, or several that make it: "day hour".')] = "",
    every: Annotated[int | None, _length("Without a time column: one row every …")] = None,
    start: Annotated[str, typer.Option(help="… from this date or time on.")] = "",
    key: Annotated[str, typer.Option(help="Whom a prediction is about: a customer, a card.")] = "",
    drop: Annotated[str, typer.Option(help="Columns to leave out, with commas between.")] = "",
    label_horizon: Annotated[int, _length("When a label is as true as it will get.")] = 0,
    repeated_times: Annotated[Repeated, typer.Option(help="Rows with the same time.")] = Repeated.REFUSE,
    as_json: Json = False,
) -> None:
    """Make a project from a data file: policy, pipeline, checks and tests, ready to run.

    Example: homeostat init price --data elec.csv --target class --every 30m --start 1996-05-07 --label-horizon 1d
    """
    from homeostat import scaffold, terminal

    options = scaffold.Options(
        data=data,
        target=target,
        time=tuple(time.split()),
        every_ms=every,
        start=start or None,
        key=key or None,
        drop=tuple(name.strip() for name in drop.split(",") if name.strip()),
        label_horizon_ms=label_horizon,
        repeated_times="allow" if repeated_times is Repeated.ALLOW else "refuse",
    )
    made = scaffold.init(folder, options)
    _show(made, as_json, lambda: terminal.made(made))


@app.command()
def run(folder: Folder = HERE, as_json: Json = False) -> None:
    """One turn: version the data, check, train, evaluate, gate, bundle, register.

    Exit code 0: passed; 1: a gate says no; 2: an error; 3: a gate is undecided. Example: homeostat run -p price
    """
    from homeostat import terminal

    with terminal.progress() as progress:
        result = _open(folder).run(progress)
    _show(result, as_json, lambda: terminal.run(result))
    raise typer.Exit(EXIT[result.verdict])


@app.command()
def rehearse(
    folder: Folder = HERE,
    warmup: Annotated[int | None, _length("The first stretch, to train on.")] = None,
    start: Annotated[
        int | None,
        _time("--from", "Stream from here on, instead of after the warm-up."),
    ] = None,
    to: Annotated[int | None, _time("--to", "Stream until here.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the trainings and scenarios; the policy's by default.")] = None,
    inject: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT@WHEN", help="A scenario to lay over the history: drift:amount:+0.5sd@2012-03."),
    ] = None,
    policies: Annotated[
        list[Path] | None, typer.Option("--policy", help="Laid over homeostat.yaml; several: side by side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The whole loop on the project's own history, beside doing nothing and retraining every week.

    Example: homeostat rehearse -p price --warmup 90d --inject broken-release@2012-03
    """
    from homeostat import terminal

    project, scenario = _open(folder), inject or []
    with terminal.progress() as progress:
        if policies:
            compared = project.compare(
                policies, warmup_ms=warmup, from_ms=start, to_ms=to, seed=seed, progress=progress, inject=scenario
            )
        else:
            result = project.rehearse(warmup, start, to, seed, progress, inject=scenario)
    if policies:
        _show(compared.json(), as_json, lambda: terminal.compared(compared))
    else:
        _show(result.json(), as_json, lambda: terminal.rehearsed(result))


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 1,
    folder: Annotated[Path, typer.Option("--dir", help="Where its project is made.")] = Path("homeostat-demo"),
) -> None:
    """A scripted life of a model on a generated stream of card payments whose truth is known.

    Example: homeostat demo --seed 7
    """
    from homeostat import demo as scripted
    from homeostat import terminal

    with terminal.progress() as progress:
        told = scripted.tell(folder, seed, terminal.story, progress)
    terminal.out.print(f"Report: {told.report}", soft_wrap=True)


@app.command()
def up(
    folder: Folder = HERE,
    port: Annotated[
        int, typer.Option(min=1, max=65_534, help="Of the control plane; the data plane takes the next.")
    ] = 8_700,
    host: Host = "127.0.0.1",
    grpc_port: GrpcPort = None,
) -> None:
    """Control plane on the port and data plane on the next one, all embedded, until Ctrl-C.

    Example: homeostat up -p price --port 8700
    """
    from homeostat import terminal
    from homeostat.web.up import up as run_up

    project = _open(folder)
    reason = run_up(project, host, port, lambda: terminal.is_up(project.policy.name, host, port), grpc_port)
    if reason:
        raise HomeostatError(reason, way_out="Start `homeostat serve --workers 1` alone to see why.")


@app.command()
def control(folder: Folder = HERE) -> None:
    """The control loop alone, in reserve: of several on one database one leads, the next takes over within seconds.

    Example: homeostat control -p price
    """
    from homeostat.web.control import control as run_control

    run_control(folder.resolve())


@app.command()
def serve(
    folder: Folder = HERE,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0: any.")] = 8_701,
    host: Host = "127.0.0.1",
    grpc_port: GrpcPort = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes: 2, 1-4 or auto, as the load asks for. [default: the policy's]")
    ] = None,
    beside: Annotated[
        list[Path] | None, typer.Option("--with", help="Another project, whose model is served too; may be repeated.")
    ] = None,
    worker: Annotated[str | None, typer.Option(hidden=True, help="One of several: its name.")] = None,
    until_stdin_closes: Annotated[bool, typer.Option(help="End with the process that started this one.")] = False,
) -> None:
    """The data plane alone: it answers while the control plane is down.

    Example: homeostat serve -p price --port 8701 --workers 2

    Several models in one process: homeostat serve -p price --with ../fraud
    """
    from homeostat.web import parent

    if until_stdin_closes:
        parent.until_stdin_closes()
    grpc = f", gRPC on {host}:{grpc_port}" if grpc_port else ""
    others = [other.resolve() for other in beside or ()]
    bounds = None if workers is None else _workers(workers)

    def started(taken: int) -> None:
        if worker is None:
            typer.echo(f"Data plane on http://{host}:{taken}{grpc}", err=True)

    if worker is not None or bounds == (1, 1):
        from homeostat.serving.sockets import alone
        from homeostat.web.serve import serve as one_worker

        if worker is None:
            alone(host, port).close()
        one_worker(folder.resolve(), host, port, started, grpc_port, worker or "plane", others)
        return
    from homeostat.web.workers import serve_many

    reason = serve_many(folder.resolve(), host, port, started, grpc_port, bounds, others)
    if reason:
        raise HomeostatError(reason, way_out="Start `homeostat serve --workers 1` to see why.")


@app.command()
def compact(
    folder: Folder = HERE,
    follow: Annotated[bool, typer.Option(help="Go on until it is ended; `homeostat up` keeps one of these.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(help="End with the process that started this one.")] = False,
    as_json: Json = False,
) -> None:
    """Move the closed segments of the log into its tables, and remove the days that may go.

    Example: homeostat compact -p price
    """
    import signal

    from homeostat import terminal
    from homeostat.config import read_policy
    from homeostat.web import parent
    from homeostat.wiring.upkeep import compactor

    if until_stdin_closes:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's
        parent.until_stdin_closes()
    made = compactor(folder.resolve(), read_policy(folder.resolve()))
    if follow:
        made.follow()
    done = made.turn()
    removed = f"; days {done.removed} removed" if done.removed else ""
    _show(done, as_json, lambda: terminal.lines(f"{done.rows:,} rows moved into the tables of the log{removed}."))


app.command()(predict)


@app.command()
def stream(
    source: Annotated[str, typer.Argument(help="kafka://HOST:PORT/TOPIC or redis://HOST:PORT/DATABASE/STREAM.")],
    sink: Annotated[str, typer.Argument(help="Where the predictions go; of the same kind.")],
    group: Annotated[str, typer.Option(help="The consumer group; homeostat-MODEL by default.")] = "",
    model: Annotated[str, typer.Option(help="The model; the project's by default.")] = "",
    dead_letter: Annotated[
        str, typer.Option(metavar="TOPIC", help="For messages that can't be answered; SOURCE.dead by default.")
    ] = "",
    batch: Annotated[int, typer.Option(min=1, max=50_000, help="Messages answered together, at most.")] = 1_000,
    folder: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON a second on standard output.")] = False,
) -> None:
    """Answer the messages of a topic on another topic, until SIGTERM or Ctrl-C. Each message is one record as JSON.

    Example: homeostat stream kafka://127.0.0.1:9092/requests kafka://127.0.0.1:9092/predictions -p price
    """
    from homeostat.web import stream as plane

    with plane.showing(as_json) as show:
        plane.stream(folder.resolve(), source, sink, group=group, model=model, dead=dead_letter, batch=batch, show=show)


@app.command()
def status(folder: Folder = HERE, as_json: Json = False) -> None:
    """The state of the loop on one screen. Example: homeostat status -p price"""
    from homeostat import terminal

    found = _open(folder).status()
    _show(found.json(), as_json, lambda: terminal.status(found))


@app.command()
def trace(
    prediction: Annotated[
        str, typer.Argument(help="A prediction id: in the answer, and in x-prediction-id. Or a W3C trace id.")
    ],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """From a prediction to everything: release, bundle, run, code, environment, data, inputs, gates, label.

    Example: homeostat trace 9f2c41d07a-1f -p price
    """
    from homeostat import terminal

    found = _open(folder).trace(prediction)
    _show(found, as_json, lambda: terminal.traced(found))


@app.command()
def replay(
    prediction: Annotated[str, typer.Argument(help="A prediction id: in the answer, and in x-prediction-id.")],
    name: Annotated[str, typer.Option("--release", help="The release whose version is to answer, as R3.")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """A recorded request through the version of another release: both answers side by side.

    Example: homeostat replay 9f2c41d07a-1f --release R3 -p price
    """
    from homeostat.terminal import releases

    found = _open(folder).replay(prediction, name)
    _show(found, as_json, lambda: releases.replayed(found))


@app.command()
def retrain(reason: Reason = "", folder: Folder = HERE, as_json: Json = False) -> None:
    """Ask the control loop for a training on the newest data; its challenger is released like any other.

    Example: homeostat retrain --reason "new prices" -p price
    """
    from homeostat import terminal

    asked = _open(folder).retrain(reason)
    _show(asked, as_json, lambda: terminal.out.print(f"Asked for: {asked.reason}. `homeostat up` carries it out."))


Out = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write to.")]


@export.command("edge")
def export_edge(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder, or an older export.")],
    version: Annotated[int | None, typer.Option(help="The version to export; the one that serves by default.")] = None,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """A signed folder that answers without a network: in a browser, in Node, in Python.

    Example: homeostat export edge site/model -p price
    """
    from homeostat import terminal

    made = _open(folder).export.edge(out, version)
    said = f"{made.model} version {made.version} is in {made.folder}; {made.checked} answers of it checked."
    _show(made, as_json, lambda: terminal.lines(said, f"Signed by {made.fingerprint}"))


@export.command("prometheus")
def export_prometheus(
    out: Out,
    port: Annotated[int, typer.Option(min=1, max=65_534, help="Of the control plane, as given to `up`.")] = 8_700,
    host: Annotated[str, typer.Option(help="Where Prometheus finds it.")] = "127.0.0.1",
    webhook: Annotated[str, typer.Option(metavar="URL", help="Where Alertmanager sends alerts.")] = "",
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """What Prometheus and Alertmanager need: what to scrape, recording and alert rules, routes.

    Example: homeostat export prometheus deploy/prometheus --webhook http://127.0.0.1:9000/alerts -p price
    """
    from homeostat import terminal

    made = _open(folder).export.prometheus(out, host, port, webhook)
    _show(made, as_json, lambda: terminal.lines(*(f"{made.folder}/{name}" for name in made.files)))


@export.command("grafana")
def export_grafana(out: Out, folder: Folder = HERE, as_json: Json = False) -> None:
    """A dashboard over what Prometheus has scraped. Example: homeostat export grafana deploy/grafana -p price"""
    from homeostat import terminal

    made = _open(folder).export.grafana(out)
    _show(made, as_json, lambda: terminal.lines(*(f"{made.folder}/{name}" for name in made.files)))


def main() -> None:
    """The entry point: errors in at most three lines, with the way out."""
    try:
        app()
    except (HomeostatError, OSError) as error:
        from homeostat import terminal

        sys.exit(terminal.fail(error if isinstance(error, HomeostatError) else _refused(error)))


def _refused(error: OSError) -> HomeostatError:
    """What the operating system refuses: no room, no permission, not there."""
    return HomeostatError(error.strerror or str(error), where=str(error.filename or ""))
