"""The commands: what each takes, which part of odeum it calls, what it prints.

The laboratory is imported where it is used, so that help and mistakes answer at once.
"""

import csv
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from odeum.errors import InputError

app = typer.Typer(
    name="odeum",
    help="Learn how things move, from data: neural differential equations.",
    epilog="Try: odeum fit data.csv --time year",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Out = Annotated[
    Path | None,
    typer.Option(help="Folder of the run, new or empty (default: runs/NAME-1, -2, ...)."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Show no progress; print only where the report is.")
]
RunDir = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"odeum {metadata.version('odeum')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _odeum(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            help="Table of observations: .csv, .tsv, .txt or .parquet.", metavar="DATA.csv"
        ),
    ],
    time: Annotated[
        str | None, typer.Option(help="Column of times (default: one called time, t, year, ...).")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B,C", help="Columns to learn (default: all other columns of numbers)."
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that tells several trajectories apart.")
    ] = None,
    model: Annotated[str, typer.Option(help="mlp, a neural network; or linear.")] = "mlp",
    hidden: Annotated[str, typer.Option(help="Widths of the network's hidden layers.")] = "64,64",
    activation: Annotated[str, typer.Option(help="Of the network: tanh, silu, ...")] = "tanh",
    method: Annotated[str, typer.Option(help="Of the solver: tsit5, dopri5, ...")] = "tsit5",
    rtol: Annotated[float, typer.Option(help="Relative tolerance of predictions.")] = 1e-5,
    atol: Annotated[float, typer.Option(help="Absolute tolerance, in standard deviations.")] = 1e-5,
    epochs: Annotated[
        int | None, typer.Option(help="Steps of training (default: a few hundred).")
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Fraction of every trajectory held out, at its end.")
    ] = 0.2,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Learn dynamics from a file; leaves a report with pictures.

    States and time are normalised, empty cells are left out of the loss, and the last part of every
    trajectory is held out to see how well the future is foretold.
    """
    from odeum import datasets, lab
    from odeum.cli.tables import show_run

    trajectories = datasets.read(data, time, _listed(state), group)
    widths = _widths(hidden)
    command = _command(context)
    with _folder(out, data.stem, resume, command) as folder:
        run = lab.fit(
            model,
            trajectories,
            out=folder,
            resume=resume,
            seed=seed,
            epochs=epochs,
            holdout=holdout,
            hidden=widths,
            activation=activation,
            method=method,
            rtol=rtol,
            atol=atol,
            device=device,
            quiet=quiet,
            command=command,
        )
    show_run(run, quiet=quiet)


@app.command()
def predict(
    run_dir: RunDir,
    data: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Table to start from: each trajectory is solved from its first complete row, at "
            "the table's times (default: the data that was learned).",
        ),
    ] = None,
    until: Annotated[
        float | None, typer.Option(help="Go on to this time, in steps of the median spacing.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, replaced whole (default: the screen).")
    ] = None,
) -> None:
    """Predict with what a run has learned; the columns are those of the data."""
    import sys

    from odeum import datasets, lab
    from odeum.files import write_whole

    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder: give the name of a file such as {out}/next.csv")
    if out is not None and data is not None and out.resolve() == data.resolve():
        raise InputError(f"--out {out} is the file that --from reads: give another name")
    run = lab.load(run_dir)
    start = run.data
    if data is not None:
        start = datasets.read(
            data, start.time_name, start.state_names, start.group_name, min_observed=1
        )
    table = run.predict(start, until)
    if out is None:
        table.to_csv(sys.stdout, index=False)
        return
    write_whole(out, lambda part: table.to_csv(part, index=False))
    print(f"{len(table)} rows written to {out}")


@app.command()
def run(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="One of those that odeum list shows.", metavar="NAME")
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change an option, as often as you like; odeum list NAME shows them.",
        ),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment; leaves a report with pictures."""
    from odeum.cli.tables import show_run
    from odeum.lab import experiments

    experiment = experiments.find(name)
    options = experiments.read_options(experiment, assignments or ())
    with _folder(out, experiment.name, resume, _command(context)) as folder:
        finished = experiment.run(options, experiments.Setting(folder, seed, device, resume, quiet))
    show_run(finished, quiet=quiet)


@app.command(name="list")
def list_experiments(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One, to see its options.")
    ] = None,
) -> None:
    """Show every experiment, one line each; or the options of one."""
    from odeum.lab import experiments

    if name is None:
        rows = [(known, found.description) for known, found in experiments.EXPERIMENTS.items()]
    else:
        rows = [
            (f"{key}={default}", meaning)
            for key, default, meaning in experiments.describe_options(experiments.find(name))
        ]
    width = max(len(first) for first, _ in rows)
    for first, second in rows:
        print(f"{first:{width}}  {second}")


@app.command()
def report(run_dir: RunDir) -> None:
    """Build report.html anew from the files of a run."""
    from odeum.lab.report import build

    print(build(run_dir))


@app.command()
def bench(
    against: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Of torchdiffeq, diffrax, torchode, heyoka, scipy (default: what is installed).",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of everyone.")] = 5,
) -> None:
    """Measure how many times faster odeum is than other libraries, in one run, in a minute or two.

    Errors stand beside: against SciPy's DOP853 at 1e-12.
    """
    from odeum.lab import bench as measured
    from odeum.lab.bench.table import HEADER, plain, plain_lines

    asked = against.split(",") if against else list(measured.LIBRARIES)
    installed = [library for library in asked if measured.is_installed(library)]
    missing = [library for library in asked if library not in installed]
    if missing:
        print(f"not installed: {', '.join(missing)} (pip install 'odeum[bench]')")
    print(plain(HEADER))
    for compared in measured.compare(installed, measured.QUICK, rounds):
        print("\n".join(plain_lines(compared)), flush=True)


@app.command()
def doctor() -> None:
    """Show versions, devices and threads, and check a solve against an exact solution."""
    from odeum.lab.doctor import examine

    findings = examine()
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.topic:{width}}  {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _listed(texts: list[str] | None) -> list[str] | None:
    """Column names from ``--state a,b --state '"c,d"'``: quotes protect a comma."""
    if texts is None:
        return None
    names = [name.strip() for row in csv.reader(texts, skipinitialspace=True) for name in row]
    if not all(names):
        raise InputError(f"--state {','.join(texts)}: give names of columns, as a,b,c")
    return names


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--hidden {text}: give whole numbers, such as 64,64") from None


@contextmanager
def _folder(out: Path | None, name: str, resume: bool, command: str) -> Iterator[Path]:
    """The run directory, known before the run, so that Ctrl-C can say how to continue there."""
    from odeum.files import interrupt_behind
    from odeum.lab.directory import make_numbered
    from odeum.lab.files import CHECKPOINT

    if out is None and resume:
        raise InputError("--resume needs --out, the folder of the run to continue")
    folder = make_numbered(name) if out is None else out
    try:
        yield folder
    except BaseException as error:
        if out is None:
            # A run that was refused leaves no empty folder; one with files in it stays.
            with suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()
        if interrupt_behind(error) is None:
            raise
        again = f"{command} --out {shlex.quote(str(folder))} --resume"
        saved = (folder / CHECKPOINT).exists()
        hint = f"continue with: {again}" if saved else "nothing was learned yet"
        typer.echo(f"interrupted; {hint}", err=True)
        raise typer.Exit(130) from None


def _command(context: typer.Context) -> str:
    """The command as given, without where it wrote and whether it was resumed."""
    words = ["odeum"]
    rest = iter(context.obj or [])
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif word != "--resume" and not word.startswith("--out="):
            words.append(word)
    return shlex.join(words)
