"""The command line: `optuna-kd search | worker | serve | dashboard | distill | report | zoo | spaces | export`."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.exceptions import TyperException

from optuna_kd import __version__
from optuna_kd.stopping import Stopped


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; Typer takes every end by a signal for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except Stopped as stopped:
            raise typer.Exit(128 + stopped.signum) from None


app = typer.Typer(
    cls=_Commands,
    name="optuna-kd",
    help="Finds the knowledge-distillation recipe, and the student, by itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console()
errors = Console(stderr=True)
INTERRUPTED = 128 + signal.SIGINT  # exit code of Ctrl-C, as shells count


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits, cifar10:DIR, cifar100:DIR or imagefolder:DIR (with DIR/train/CLASS/ and DIR/test/CLASS/ or "
        "DIR/val/CLASS/).",
        metavar="SOURCE",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option("--teacher", help="Name of the teacher network. [default: resnet20]", metavar="NAME"),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--teacher-checkpoint",
        help="Weights of the teacher (a state_dict). Without it the teacher is trained first and kept.",
        metavar="FILE",
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        "--student",
        help="Name of the student network; of searched students the family, resnet or wrn. "
        "[default: resnet8x0.125 on digits, else resnet8]",
        metavar="NAME",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="All randomness derives from it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
PrecisionName = Annotated[
    str, typer.Option("--precision", help="auto (bfloat16 where the device gains), float32, tf32 or bfloat16.")
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Deterministic algorithms, in float32.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        help="Epochs of each full training. [default: 15 on digits, else 30, or 10 for many images on a CPU]",
        min=1,
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        help="Students per method in the closing table. [default: 10 on digits, 5 of searched students, else 3]",
        min=1,
    ),
]
MaxTrain = Annotated[
    int | None,
    typer.Option("--max-train", help="Use at most this many training images, each class in proportion.", min=1),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Images per step. [default: 64 on digits, else 128]", min=1)
]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", help="Resize and crop an image folder to this side.", min=8)
]


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Find the knowledge-distillation recipe, and the student, by itself."""


@app.command()
def search(
    data: Data = "digits",
    teacher: Teacher = None,
    teacher_checkpoint: Checkpoint = None,
    student: Student = None,
    method: Annotated[
        str,
        typer.Option("--method", help="auto-kd: the recipe for one student; uniads: student and recipe together."),
    ] = "auto-kd",
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="Total of the study, earlier runs included. [default: 60]", min=1),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", help="Time for the whole job, from each start anew, e.g. 20m.", metavar="DURATION"),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", help="Processes; each gets its share of the cores, and of the GPUs.", min=1)
    ] = 2,
    engine: Annotated[
        str, typer.Option("--engine", help="What runs them: local (this machine), or ray (a Ray cluster).")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="ray: of the cluster, HOST:PORT or auto. [default: RAY_ADDRESS, else this machine alone]",
            metavar="ADDRESS",
        ),
    ] = None,
    cpus_per_worker: Annotated[
        float | None, typer.Option("--cpus-per-worker", help="ray: processors, and torch threads. [default: 1]")
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option("--gpus-per-worker", help="ray: 0.25 puts four workers on a GPU. [default: 1, without GPUs 0]"),
    ] = None,
    together: Annotated[
        int | None,
        typer.Option(
            "--together", help="Trials that a process trains at once, as one network. [default: 1, on a GPU 8]", min=1
        ),
    ] = None,
    storage: Annotated[str, typer.Option("--storage", help="Database URL.", metavar="URL")] = "sqlite:///optuna_kd.db",
    study_name: Annotated[
        str | None, typer.Option("--study-name", help="[default: derived from the settings]", metavar="NAME")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    deterministic: Deterministic = False,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="auto-kd, auto-kd-extended, feature-only or naive; see `optuna-kd spaces`. [default: the method's]",
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            "--objectives",
            help="What uniads minimises: cross_entropy or error, and parameters, flops, latency_ms or budget_gap. "
            "[default: cross_entropy,parameters]",
            metavar="LIST",
        ),
    ] = None,
    max_params: Annotated[
        float | None, typer.Option("--max-params", help="uniads: parameters that a student may have.")
    ] = None,
    max_flops: Annotated[
        float | None, typer.Option("--max-flops", help="uniads: floating-point operations for one image.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option("--max-latency-ms", help="uniads: for one image on one CPU thread, here.")
    ] = None,
    budget_params: Annotated[
        float | None, typer.Option("--budget-params", help="uniads: parameters, for the objective budget_gap.")
    ] = None,
    screen: Annotated[
        float,
        typer.Option(
            "--screen", help="uniads: share of the students with the lowest training-free score (DisWOT), not trained."
        ),
    ] = 0.0,
    chain: Annotated[
        int | None,
        typer.Option("--chain", help="uniads: transforms of one kind of knowledge. [default: 1]", min=1, max=3),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler", help="mcts, uct (the paper's), uniads, random, tpe or nsga2. [default: the method's]"
        ),
    ] = None,
    reward: Annotated[
        str, typer.Option("--reward", help="What a proxy is worth: bounded, paper, ce, ce-l1 or accuracy.")
    ] = "bounded",
    temperatures: Annotated[
        str | None,
        typer.Option(
            "--temperatures",
            help="Logit temperatures of the auto-kd space; the paper's supplement has 1,4,8,16. [default: 1,2,4,8]",
            metavar="LIST",
        ),
    ] = None,
    proxy_epochs: Annotated[
        int | None,
        typer.Option(
            "--proxy-epochs", help="Epochs of a proxy. [default: 8 on digits with one student, else 12]", min=1
        ),
    ] = None,
    subset: Annotated[
        float | None,
        typer.Option(
            "--subset",
            help="Training images of a proxy: a share up to 1, or a number above. "
            "[default: 1 on digits, else 0.2, but 1,000 images at least]",
        ),
    ] = None,
    subset_by: Annotated[
        str, typer.Option("--subset-by", help="images: some of every class; classes: all of some classes.")
    ] = "images",
    sparsity: Annotated[
        float,
        typer.Option(
            "--sparsity",
            help="Share of a proxy's weights that are zero and move (RigL); the paper has 0.5. Saves no time.",
        ),
    ] = 0.0,
    narrow: Annotated[
        float,
        typer.Option(
            "--narrow",
            help="Share of the student's channels that stay while it is a proxy: 0.71 halves its cost. [narrow]",
        ),
    ] = 1.0,
    proxy_batch: Annotated[
        int | None,
        typer.Option(
            "--proxy-batch",
            help="Images per step of a proxy. [default: those of --batch-size, halved until a proxy has 100 steps]",
            min=1,
        ),
    ] = None,
    knowledge: Annotated[
        str,
        typer.Option(
            "--knowledge",
            help="How the teacher is asked: replay (stored outputs of augmented views), aligned (of the clean images, "
            "moved with them; approximate), online, or auto (replay where it fits).",
        ),
    ] = "auto",
    knowledge_limit: Annotated[
        str, typer.Option("--knowledge-limit", help="What may be stored of the teacher's outputs.", metavar="SIZE")
    ] = "2GB",
    knowledge_dir: Annotated[
        Path | None,
        typer.Option("--knowledge-dir", help="Store them in this folder, in half precision. [default: in memory]"),
    ] = None,
    keep_knowledge: Annotated[
        bool, typer.Option("--keep-knowledge/--delete-knowledge", help="Whether such files stay for the next search.")
    ] = True,
    epochs: Epochs = None,
    seeds: Seeds = None,
    confirm: Annotated[
        str,
        typer.Option("--confirm", help="Best recipes scored again x new seeds of each; 0 for none.", metavar="NxM"),
    ] = "5x3",
    max_train: MaxTrain = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    runs: Annotated[Path, typer.Option("--runs", help="Results are written to RUNS/STUDY/.")] = Path("runs"),
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            "--warm-start",
            help="Try first what did best on the most similar tasks: a card or recipe file, a folder of finished "
            "searches, a database URL, the name of a study, or auto (all of RUNS). May be given again.",
            metavar="SOURCE",
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write what takes the time of a training step to RUNS/STUDY/profile.txt.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show layers, space, time and disk, and stop before the controls."),
    ] = False,
) -> None:
    """Find a recipe, train the student with it and with the controls, and compare them honestly.

    Running the same command again goes on where it was stopped.
    """
    from optuna_kd.commands import SearchOptions, run_search

    run_search(
        SearchOptions(
            data=data,
            teacher=teacher,
            teacher_checkpoint=teacher_checkpoint,
            student=student,
            seed=seed,
            device=device,
            precision=precision,
            deterministic=deterministic,
            epochs=epochs,
            seeds=seeds,
            max_train=max_train,
            batch_size=batch_size,
            image_size=image_size,
            method=method,
            trials=trials,
            timeout=timeout,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            storage=storage,
            study_name=study_name,
            space=space,
            objectives=objectives,
            max_params=max_params,
            max_flops=max_flops,
            max_latency_ms=max_latency_ms,
            budget_params=budget_params,
            screen=screen,
            chain=chain,
            sampler=sampler,
            reward=reward,
            temperatures=temperatures,
            proxy_epochs=proxy_epochs,
            subset=subset,
            subset_by=subset_by,
            sparsity=sparsity,
            narrow=narrow,
            proxy_batch=proxy_batch,
            together=together,
            knowledge=knowledge,
            knowledge_limit=knowledge_limit,
            knowledge_dir=knowledge_dir,
            keep_knowledge=keep_knowledge,
            confirm=confirm,
            runs=runs,
            warm_start=tuple(warm_start or ()),
            profile=profile,
            dry_run=dry_run,
        ),
        console,
    )


@app.command()
def worker(
    storage: Annotated[str, typer.Option("--storage", help="Database URL of the search.", metavar="URL")],
    study_name: Annotated[str, typer.Option("--study-name", help="The study, as the search names it.", metavar="NAME")],
    workers: Annotated[int, typer.Option("--workers", help="Processes; each gets its share of the cores.", min=1)] = 1,
    together: Annotated[
        int | None, typer.Option("--together", help="Trials that a process trains at once. [default: 1]", min=1)
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Total of the study. [default: the search's]", min=1)
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", help="After which no trial begins, from each start anew, e.g. 1h30m.", metavar="DURATION"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Where the data are here. [default: as there]", metavar="SOURCE")
    ] = None,
    teacher_checkpoint: Checkpoint = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, ... [default: as there]")] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Where interrupted trials keep their state. [default: as there]")
    ] = None,
    knowledge_dir: Annotated[
        Path | None,
        typer.Option("--knowledge-dir", help="Where the search's --knowledge-dir is here. [default: as there]"),
    ] = None,
) -> None:
    """Run trials of a search that is under way, from another terminal or another machine.

    It takes the search's own options from the study, and ends when the study has its trials.
    """
    from optuna_kd.commands import WorkerOptions, run_worker

    run_worker(
        WorkerOptions(
            storage=storage,
            study_name=study_name,
            workers=workers,
            together=together,
            trials=trials,
            timeout=timeout,
            data=data,
            teacher_checkpoint=teacher_checkpoint,
            device=device,
            runs=runs,
            knowledge_dir=knowledge_dir,
        ),
        console,
    )


@app.command()
def serve(
    storage: Annotated[str, typer.Option("--storage", help="Database URL.", metavar="URL")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.", min=1, max=65535)] = 13000,
) -> None:
    """Let workers on other machines use a database through this one, as `grpc://HOST:PORT`."""
    from optuna_kd.serving import run_serve

    run_serve(storage, host, port, console)


@app.command()
def dashboard(
    storage: Annotated[str, typer.Option("--storage", help="Database URL.", metavar="URL")] = "sqlite:///optuna_kd.db",
    artifact_dir: Annotated[
        Path, typer.Option("--artifact-dir", help="Where searches put students, recipes and reports.", metavar="DIR")
    ] = Path("runs/artifacts"),
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8080,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    refresh: Annotated[
        list[str] | None,
        typer.Option(
            "--refresh",
            help="A study that optuna_kd did not make and that gets our figures as well. May be given again.",
            metavar="STUDY",
        ),
    ] = None,
) -> None:
    """Open optuna-dashboard on the studies, with their figures, notes and students.

    Figures and notes are brought up to date while it is open.
    """
    from optuna_kd.analysis.dashboard import serve_dashboard

    serve_dashboard(
        storage,
        artifacts=artifact_dir,
        host=host,
        port=port,
        refresh=refresh or (),
        say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
    )


@app.command()
def distill(
    recipe: Annotated[
        Path,
        typer.Option(
            "--recipe",
            help="A recipe file, a recipe card, the folder of a search, or a name (see `spaces`).",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for student, recipe and summary.")] = Path("runs/distill"),
    data: Data = "digits",
    teacher: Teacher = None,
    teacher_checkpoint: Checkpoint = None,
    student: Student = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    deterministic: Deterministic = False,
    epochs: Epochs = None,
    seeds: Seeds = None,
    max_train: MaxTrain = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
) -> None:
    """Train a known recipe in full, by several processes under `torchrun -m optuna_kd.cli distill`."""
    from optuna_kd.commands import TaskOptions, run_distill

    options = TaskOptions(
        data=data,
        teacher=teacher,
        teacher_checkpoint=teacher_checkpoint,
        student=student,
        seed=seed,
        device=device,
        precision=precision,
        deterministic=deterministic,
        epochs=epochs,
        seeds=seeds,
        max_train=max_train,
        batch_size=batch_size,
        image_size=image_size,
    )
    run_distill(options, recipe, out, console)


@app.command()
def report(
    study: Annotated[
        str | None,
        typer.Argument(help="Its name. [default: the searched study, if there is one]", show_default=False),
    ] = None,
    storage: Annotated[str, typer.Option("--storage", help="Database URL.", metavar="URL")] = "sqlite:///optuna_kd.db",
    out: Annotated[Path, typer.Option("--out", help="A folder, or the HTML file.", metavar="PATH")] = Path("."),
) -> None:
    """Write what a study says as one HTML page and as Markdown: what was searched, what was found, and is it real.

    The page needs no network. The storage is only read; any Optuna study will do, a running one, too.
    """
    from optuna_kd.reporting import report_from_storage

    for file in report_from_storage(study, storage, out):
        console.print(f"Wrote {file}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def zoo(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders, card files and database URLs. [default: runs and sqlite:///optuna_kd.db]",
            metavar="[FOLDER|URL]...",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that the cards say, for machines.")] = False,
) -> None:
    """List finished studies and recipe cards.

    Results with the same letters under `comparable` may be compared: same data and split, teacher, student, epochs and
    preprocessing.
    """
    from optuna_kd.zoo import visit

    found = visit(sources or ())
    if as_json:
        typer.echo(found.to_json())
    else:
        for table in found.tables():
            console.print(table)
        for note in found.notes:
            errors.print(note, highlight=False, markup=False, soft_wrap=True, style="yellow")
    if found.unread:
        raise typer.Exit(2)


@app.command()
def spaces() -> None:
    """Show what can be searched."""
    from optuna_kd.commands import show_spaces

    show_spaces(console)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished search, e.g. runs/STUDY.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="The file to write.", metavar="FILE")],
) -> None:
    """Write the student of a finished search as ONNX."""
    from optuna_kd.commands import run_export

    run_export(run, onnx, console)


def main() -> NoReturn:
    """Run the command line; wrong input gets one line and exit code 2, Ctrl-C gets 130, a SIGTERM 143."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    warnings.simplefilter("ignore")  # of the libraries below; what matters to users is said in words
    signal.signal(signal.SIGTERM, _interrupt)  # pre-emption is Ctrl-C
    try:
        code = app(standalone_mode=False) or 0
        if code in (INTERRUPTED, 128 + signal.SIGTERM):
            raise Stopped(code - 128)
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort) as stopped:
        _complain("Stopped. What is finished is kept; the same command goes on from there.", style="yellow")
        sys.exit(128 + stopped.signum if isinstance(stopped, Stopped) else INTERRUPTED)
    except TyperException as error:
        if message := error.format_message():  # without a command the help was printed instead
            _complain(f"Error: {message.rstrip('.')}. Try `{' '.join(['optuna-kd', *sys.argv[1:2]])} --help`.")
        sys.exit(2)
    except Exception as error:
        # Input that cannot be used, and what this package says itself, are messages; anything else is a bug.
        if not isinstance(error, ValueError | OSError) and not type(error).__module__.startswith("optuna_kd"):
            raise
        _complain(f"Error: {error}")
        sys.exit(2)


def _complain(text: str, style: str = "red") -> None:
    errors.print(text, highlight=False, markup=False, soft_wrap=True, style=style)


def _interrupt(signum: int, _: Any) -> NoReturn:
    raise Stopped(signum)


if __name__ == "__main__":
    main()
