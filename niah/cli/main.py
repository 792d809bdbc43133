"""The command line: one thin function per command, errors as one line, exit codes.

Every command imports what it needs when it is called, so that `--help` costs nothing.
"""

import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

try:
    from typer import TyperException as CallError
except ImportError:  # older releases raise click's own exceptions
    from click import ClickException as CallError  # type: ignore[assignment]
from typer.core import TyperGroup

from niah.waiting import let_waiting_threads_sleep

if TYPE_CHECKING:
    from niah.execution.jobs import Tally
    from niah.execution.loading import Bench
    from niah.execution.places import Place
    from niah.sweep.config import Arm, Sweep
    from niah.sweep.trials import Plan


class ReaderGoneError(Exception):
    """Whoever read standard output went away, as `head` does."""


class Commands(TyperGroup):
    """The commands. Without this typer ends with 1 where the reader went away, as a gate fails."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            raise ReaderGoneError from None


app = typer.Typer(
    name="niah",
    cls=Commands,
    help="Measure what a compressed KV cache forgets.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

# As in niah.statistics, niah.gate and niah.training, which take long to import.
FLOOR = 0.5
ALPHA = 0.05
MAX_SEED = 2**63 - 1

# Exit codes beside the gate's 0, 1 and 3, and 2 for what a user can mend.
DEFECT = 70
INTERRUPTED = 130
BROKEN_PIPE = 141


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


def a_file(path: Path | None) -> Path | None:
    """A file to write, before anything is done for it. Raises: BadParameter."""
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file")
    if path is not None:
        a_folder(path.parent)
    return path


def a_folder(path: Path | None) -> Path | None:
    """A folder to write into. Raises: BadParameter."""
    for each in (path, *path.parents) if path is not None else ():
        if each.exists() and not each.is_dir():
            raise typer.BadParameter(f"{each} is a file; name a folder")
    return path


def a_page(path: Path | None) -> Path | None:
    """A folder, or a file of HTML. Raises: BadParameter."""
    return a_file(path) if path is not None and path.suffix == ".html" else a_folder(path)


def share(meaning: str) -> Any:
    """An option from 0 to 1; whatever is no number is named in the message."""
    return typer.Option(parser=number, metavar="SHARE", help=meaning)


Config = Annotated[Path, typer.Argument(help="The sweep's YAML file (see configs/).")]
Runs = Annotated[list[Path], typer.Argument(help="Folders that `niah run` wrote.")]
Floor = Annotated[float, share("Baseline recall below which a tax is undefined.")]


def print_version(wanted: bool) -> None:
    if wanted:
        from niah.execution.environment import installed

        typer.echo(f"niah {installed('niah-harness') or 'of a source tree'}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say more; show where an error came from.")
    ] = False,
) -> None:
    refuse_shadows()
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    if not verbose:  # each retry of a request to the hub
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@app.command()
def plan(
    config: Config,
    max_tax: Annotated[
        float | None, share("Also say how many streams a gate with this margin takes to pass.")
    ] = None,
) -> None:
    """Say what a sweep will cost and what it can show. No question is asked."""
    from rich.console import Console

    from niah.cli.printing import print_plan
    from niah.execution.prepare import prepare

    if max_tax is not None and not 0 < max_tax < 1:
        raise typer.BadParameter(
            f"{max_tax} is no share above 0 and below 1", param_hint="--max-tax"
        )
    prepared = prepare(config)
    print_plan(Console(), prepared.plan, prepared.estimates, max_tax)
    print_residues(prepared.plan, prepared.bench)


@app.command()
def run(
    config: Config,
    out: Annotated[
        Path | None,
        typer.Option(callback=a_folder, help="The run's folder. Default: runs/NAME of the sweep."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let the workers of a Ray cluster ask (docs/scale.md): HOST:PORT of its head; "
            "auto, the cluster of this machine; local, a new one on this machine.",
        ),
    ] = None,
    ray_gpus: Annotated[
        float | None, typer.Option(help="GPUs of a worker, with --ray. Default: 1.")
    ] = None,
) -> None:
    """Run a sweep; the same command again resumes an interrupted one.

    A sweep that adds repeats, lengths, depths, corpora, families or arms to those of the folder
    is asked what is new.

    Exit code 1: some questions ended in an error (they are asked again on resume); 130: Ctrl-C.
    """
    from niah.execution.loading import load_bench
    from niah.execution.places import find_place
    from niah.runs.history import earlier_sweeps
    from niah.runs.store import is_finished
    from niah.sweep.config import load_sweep

    if ray_gpus is not None and (ray is None or ray_gpus <= 0):
        raise typer.BadParameter(
            f"{ray_gpus:g}: should be above 0, and be given with --ray", param_hint="--ray-gpus"
        )
    sweep = load_sweep(config)
    folder = out or Path("runs") / sweep.name
    before = earlier_sweeps(folder, sweep)  # refuses a changed sweep before any model is loaded
    with find_place(ray, sweep, before, ray_gpus or 1) as place:
        bench = load_bench(sweep, place.load)
        finished = is_finished(folder, sweep.model_dump(mode="json"), bench.identity())
        tally = None if finished else ask(folder, sweep, bench, before, place)
    if tally is None:
        typer.echo(f"nothing is left to ask: {folder} holds an answer to every question")
    show_run(folder, sweep)
    if tally is not None:
        summarize(folder, sweep, tally)


def print_residues(plan: "Plan", bench: "Bench") -> None:
    """Which blocks of the models the lengths meet at one place only."""
    from niah.sweep.residues import residue_notes

    for note in residue_notes(plan, {arm: found.describe() for arm, found in bench.models.items()}):
        typer.echo(f"note: {note}")


def ask(
    folder: Path, sweep: "Sweep", bench: "Bench", before: "Sequence[Sweep]", place: "Place"
) -> "Tally":
    """Ask what is left. Raises: typer.Exit at Ctrl-C."""
    from rich.console import Console

    from niah.cli.printing import Bar, print_left, print_plan
    from niah.execution.interrupts import Interrupts
    from niah.execution.jobs import Tally, jobs_left, open_store, run_jobs
    from niah.execution.prepare import lay_out

    _, planned, estimates = lay_out(sweep, bench, before)
    print_plan(Console(), planned, estimates)
    print_residues(planned, bench)
    bar, tally, interrupts = Bar(), Tally(), Interrupts()

    def progress(arm: "Arm", tokens: int) -> None:
        interrupts.check()
        bar.advance(arm, tokens)

    with open_store(folder, planned, bench, place.environment()) as store, interrupts:
        jobs = jobs_left(planned, bench, store)
        print_left(Console(), planned, jobs)
        try:
            bar.start(jobs)
            run_jobs(jobs, place.executor(planned, bench, folder, progress), store, tally)
        except KeyboardInterrupt:
            told = f": {tally.rows} rows written by this run are"
            raise typer.Exit(interrupted(told, folder)) from None
        finally:
            bar.close()
    return tally


def summarize(folder: Path, sweep: "Sweep", tally: "Tally") -> None:
    """Say what came of a run. Raises: typer.Exit where a question ended in an error."""
    from rich.console import Console

    from niah.cli.printing import count_answers, print_summary
    from niah.runs.store import ROWS, parsed_rows

    console, answers = Console(), count_answers(parsed_rows(folder / ROWS))
    print_summary(console, tally, answers, [arm.name for arm in sweep.arms])
    console.print(f"rows: {folder / ROWS}", soft_wrap=True)
    if answers.errors:
        typer.echo(
            f"{len(answers.errors)} questions ended in an error, the first with "
            f"{answers.first_error!r}; the same command asks them again",
            err=True,
        )
        raise typer.Exit(1)


def show_run(folder: Path, sweep: "Sweep") -> None:
    """The heatmaps of a run that has arms to compare."""
    from niah.report.terminal import terminal_report

    if {arm.role for arm in sweep.arms} >= {"baseline", "compressed"}:
        terminal_report(folder)


def interrupted(told: str, folder: Path) -> int:
    """Say what is safe in a folder; the exit code of a process ended by Ctrl-C."""
    typer.echo(f"stopped{told} safe in {folder}; the same command goes on from there", err=True)
    return INTERRUPTED


@app.command()
def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=a_page,
            help="A folder, or an .html file for the page. Default: reports/NAME[-NAME...].",
        ),
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", help="html: one page; png, svg, csv, md: files of their own.")
    ] = "html",
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Print the heatmaps here and write nothing.")
    ] = False,
    floor: Floor = FLOOR,
) -> None:
    """Write one self-contained HTML page about a run or several, or its figures and tables."""
    if terminal and (out is not None or file_format != "html"):
        raise typer.BadParameter("--terminal writes nothing; leave out --out and --format")
    from niah.runs.tables import distinct_names

    names = distinct_names([run.resolve() for run in runs])
    folder = out or Path("reports") / "-".join(name.replace("/", "-") for name in names)
    if terminal:
        from niah.report.terminal import terminal_report

        terminal_report(runs, floor=floor)
    elif file_format == "html":
        from niah.report.html.page import write_report

        typer.echo(f"report: {write_report(runs, folder, floor)}")
    else:
        from niah.report.files import write_files

        for path in write_files(runs, folder, file_format, floor):
            typer.echo(path)


@app.command()
def gate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    max_tax: Annotated[float, share("The recall that may be lost: 0.02 is two points.")],
    against: Annotated[
        Path | None, typer.Option(help="An earlier run to compare with, arm by arm.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="A compressed arm to judge; all by default.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            help="Judge by this instead of the usual slices: at_length, at_depth, family, corpus, "
            "template_split, length_mod_4, needle_mod_4, length_mod_128, needle_mod_128.",
        ),
    ] = None,
    require_slices: Annotated[
        bool, typer.Option(help="Every slice has to pass, not only not to fail.")
    ] = False,
    max_slice_tax: Annotated[
        float | None, share("The margin of a slice; --max-tax by default.")
    ] = None,
    alpha: Annotated[float, share("One-sided chance of a wrong verdict.")] = ALPHA,
    floor: Floor = FLOOR,
    json_out: Annotated[
        Path | None, typer.Option("--json", callback=a_file, help="Also write JSON here.")
    ] = None,
    junit_out: Annotated[
        Path | None, typer.Option("--junit", callback=a_file, help="Also write JUnit XML here.")
    ] = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", callback=a_file, help="Also write Markdown here.")
    ] = None,
) -> None:
    """Judge whether the tax is at most a margin.

    Exit codes: 0 it is shown to be; 1 it is shown to exceed it, or recall regressed; 3
    inconclusive; 2 wrong usage or results that cannot be read or do not pair.
    """
    from niah.files import write_atomically
    from niah.gate import formats
    from niah.gate.verdict import DEFAULT_SLICES, run_gate
    from niah.runs.store import refuse_run_file

    forms = (
        (json_out, formats.as_json),
        (junit_out, formats.as_junit),
        (markdown_out, formats.as_markdown),
    )
    outputs = [path for path, _ in forms if path]
    for output in outputs:
        refuse_run_file(output)
        if outputs.count(output) > 1:
            raise typer.BadParameter(f"{output} is named twice; each form has a file of its own")
    result = run_gate(
        folder,
        against,
        max_tax,
        arms=arm or (),
        slices=slices or DEFAULT_SLICES,
        require_slices=require_slices,
        max_slice_tax=max_slice_tax,
        alpha=alpha,
        floor=floor,
    )
    typer.echo(formats.as_text(result))
    for path, form in forms:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, form(result))
    raise typer.Exit(result.exit_code)


@app.command()
def accept(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    reference: Annotated[
        Path, typer.Argument(callback=a_folder, help="The small run that `gate --against` reads.")
    ],
    despite_regression: Annotated[
        bool, typer.Option("--despite-regression", help="Even if recall has fallen.")
    ] = False,
) -> None:
    """Make a run the reference of later gates, and say what that changes."""
    from niah.gate.accept import accept as accept_run

    for line in accept_run(folder, reference, despite_regression):
        typer.echo(line)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    key: Annotated[str, typer.Argument(help="A row's key or pair, or its first digits.")],
) -> None:
    """Print a prompt around its needle with token indices, and the answers of all arms."""
    from niah.runs.archive import show_lines

    for line in show_lines(folder, key):
        typer.echo(line)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Argument(callback=a_file, help="The file to write.")],
    shape: Annotated[
        Literal["ruler", "lm-eval"], typer.Option(help="Whose field names to use.")
    ] = "ruler",
    file_format: Annotated[
        Literal["jsonl", "parquet"] | None,
        typer.Option("--format", help="Default: by the file's suffix."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="One arm's rows: other tools average over a file.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also questions whose answer is not in the prompt.")
    ] = False,
) -> None:
    """Write a run's prompts and answers as JSONL or Parquet for other tools."""
    from niah.runs.export import export as export_run

    by_suffix: Literal["jsonl", "parquet"] = "parquet" if out.suffix == ".parquet" else "jsonl"
    if file_format is None and out.suffix not in ("", ".jsonl", ".parquet"):
        raise typer.BadParameter(
            f"{out}: {out.suffix} is neither .jsonl nor .parquet; give --format", param_hint="OUT"
        )
    count = export_run(folder, out, shape, file_format or by_suffix, arm, controls)
    typer.echo(f"{count} records: {out}")


@app.command()
def cost(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            help="Presets (v3.2, v4-pro, v4-flash, v4.1-flash, gqa8, v3), models of this "
            "repository, or config.json files of transformers. The first is the measure of the "
            "others. Default: the published models."
        ),
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option(help="Tokens, such as 4096 or 4K, as often as wanted. Default: 4K to 1M."),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="How rows are stored: published (each model's own), fp32, bf16, fp8, v4, "
            "v4-fp8-index, v3.2, v4.1, nvfp4, int8, int4, int2, q8_0, q4_0."
        ),
    ] = "published",
    block: Annotated[int, typer.Option(help="Tokens of a page; caches take whole pages.")] = 1,
    claims: Annotated[
        bool, typer.Option("--claims", help="Check published figures; exit 1 where one is off.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="Memory of a card, e.g. 80GB: says what fits.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The model's weights on all cards together, e.g. 160GB.")
    ] = None,
    cards: Annotated[int, typer.Option(help="Equal cards, with --memory.")] = 1,
    reserve: Annotated[
        str, typer.Option(help="Kept free on a card for activations, with --memory.")
    ] = "0B",
    split: Annotated[
        Literal["sequences", "heads", "tokens"],
        typer.Option(help="What the cards divide among them, with --memory."),
    ] = "sequences",
) -> None:
    """Cache bytes and FLOPs by length, what fits into memory, and published claims checked.

    Exit codes: 0; 1 with --claims where a figure is off by more than 2%; 2 wrong usage.
    """
    from rich.console import Console

    from models.costs.capacity import Cards, parse_size
    from models.costs.presets import SHOWN, find_architecture
    from models.costs.tables import LENGTHS
    from niah.cli.cost_tables import print_capacity, print_claims, print_costs, short_name

    console = Console()
    if claims:
        told = model or length or memory or weights
        if told or (layout, block, cards, reserve, split) != ("published", 1, 1, "0B", "sequences"):
            raise typer.BadParameter("--claims checks published figures: leave out all else")
        raise typer.Exit(print_claims(console))
    lengths = [tokens_of(text) for text in length or ()] or LENGTHS
    found = {short_name(name): find_architecture(name) for name in model or SHOWN}
    if memory is None:
        if weights is not None or cards != 1 or reserve != "0B" or split != "sequences":
            raise typer.BadParameter(
                "--weights, --cards, --reserve and --split need --memory, of a card"
            )
        print_costs(console, found, lengths, layout, block, by_part=bool(model))
        return
    if weights is None:
        raise typer.BadParameter("--memory needs --weights, the weights on all cards together")
    sizes = Cards(
        parse_size(memory, "--memory"),
        parse_size(weights, "--weights"),
        cards,
        parse_size(reserve, "--reserve"),
    )
    print_capacity(console, found, sizes, lengths, layout, block, split)


def tokens_of(text: str) -> int:
    """A length as in a sweep's YAML. Raises: BadParameter."""
    from niah.sweep.config import parse_length

    try:
        tokens = int(str(parse_length(text)))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}", param_hint="--length") from None
    if tokens < 1:
        raise typer.BadParameter(f"{text!r} should be 1 at least", param_hint="--length")
    return tokens


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="The training's YAML file (configs/train*.yaml).")],
    arm: Annotated[
        Literal["compressed", "dense", "mla", "dsa", "engram"],
        typer.Option(help="DeepSeek-V4, or its trunk uncompressed, with MLA, DSA or Engram."),
    ],
    out: Annotated[Path, typer.Option(callback=a_folder, help="Where its folder is made.")] = Path(
        "runs/train"
    ),
    device: Annotated[
        str, typer.Option(help="cpu, auto, or a device of this machine such as cuda.")
    ] = "cpu",
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="In the place of the configuration's.")
    ] = None,
) -> None:
    """Train one arm of a training's configuration.

    Exit code 130: stopped by Ctrl-C or SIGTERM; the same command goes on.
    """
    from niah.training.trainer import train as train_arm

    trainer = train_arm(config, arm, out, device, seed)
    if not trainer.finished:
        told = f" after step {trainer.step} of {trainer.config.num_steps}; its state is"
        raise typer.Exit(interrupted(told, trainer.folder))
    typer.echo(f"checkpoint: {trainer.folder}")


@app.command("export-model")
def export_checkpoint(
    model: Annotated[str, typer.Argument(help="A DeepSeek-V4 of `niah models`, or path:FOLDER.")],
    out: Annotated[Path, typer.Option(callback=a_folder, help="The folder to write.")],
    layout: Annotated[
        Literal["transformers", "official", "gguf"],
        typer.Option("--format", help="Whose layout: gguf is one file for llama.cpp."),
    ] = "transformers",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of matrices: float32 or bfloat16; for official also fp8, or fp4 for its experts. "
            "Default: float32, for official bfloat16."
        ),
    ] = None,
    sharpen: Annotated[
        float | None,
        typer.Option(help="A constant temperature, in place of a checkpoint's log_length_base."),
    ] = None,
    golden: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Also write golden.json: prompts of at most so many tokens and what is predicted.",
        ),
    ] = None,
) -> None:
    """Write a nano checkpoint, with its tokenizer, as other engines load it."""
    from niah.interchange.export import export_model

    written = export_model(model, layout, out, precision, sharpen, golden)
    typer.echo(f"checkpoint: {written}")


@app.command("check-model")
def check_model(
    model: Annotated[str, typer.Argument(help="Any name of `niah models`.")],
    golden: Annotated[Path, typer.Argument(help="A golden.json of `niah export-model`.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an option of the model as in a sweep's arm."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The most that a log-probability may be off.")
    ] = 0.01,
) -> None:
    """Compare a model's predictions and greedy answers with golden vectors.

    Exit codes: 0 all agree; 1 some differ; 2 wrong usage.
    """
    from models.registry import load_model
    from niah.interchange.golden import agrees, check, finding_line, read_golden

    if not tolerance > 0:
        raise typer.BadParameter(f"{tolerance} is not above 0", param_hint="--tolerance")
    vectors = read_golden(golden)
    loaded = load_model(model, dict(named_value(text) for text in option or ()))
    alike = []
    for finding in check(loaded, vectors, tolerance):
        typer.echo(finding_line(finding, tolerance))
        alike.append(agrees(finding, tolerance))
    typer.echo(f"{sum(alike)} of {len(alike)} prompts agree")
    raise typer.Exit(0 if all(alike) else 1)


def named_value(text: str) -> tuple[str, object]:
    """NAME=VALUE, the value as YAML reads it. Raises: typer.BadParameter."""
    import yaml

    name, equals, value = text.partition("=")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        found = value
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--option")
    return name, found


@app.command()
def models() -> None:
    """List the models a sweep's arms may name."""
    from models.registry import available_models

    print_names(available_models())


@app.command()
def corpora() -> None:
    """List the texts a sweep may plant needles in."""
    from haystacks.corpora.registry import available_corpora

    print_names(available_corpora())


@app.command()
def needles() -> None:
    """List the needle families a sweep may plant."""
    from haystacks.needles.registry import available_families

    print_names(available_families())


def print_names(names: Mapping[str, str]) -> None:
    width = max(map(len, names))
    for name, line in names.items():
        typer.echo(f"{name:<{width}}  {line}")


def main() -> None:
    """The console script.

    What a user can mend is one line and exit code 2; a defect of the program is a traceback and
    exit code 70.
    """
    let_waiting_threads_sleep()
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a sign shows "?"
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="niah", standalone_mode=False)
    except CallError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "niah"
        refuse(f"{error.format_message().rstrip('.')}; see {command} --help")
    except ReaderGoneError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("niah: stopped", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        from niah.errors import can_be_mended, told

        if not can_be_mended(error):
            traceback.print_exc()
            sys.exit(DEFECT)
        logging.getLogger(__name__).debug("where it came from", exc_info=True)
        refuse(told(error))
    sys.exit(code)


def refuse_shadows() -> None:
    """Raises: NiahError where another package called `models` or `haystacks` is found first."""
    from niah.errors import NiahError

    home = Path(__file__).parents[2]
    for name in ("models", "haystacks"):
        found = importlib.import_module(name).__file__
        if found is None or Path(found).parents[1] != home:
            raise NiahError(
                f"{name}: Python finds {found or f'a folder {name}'} before the package of niah; "
                "run niah in another folder, or take that one off PYTHONPATH"
            )


def refuse(reason: str) -> NoReturn:
    """One line, exit code 2."""
    typer.echo(f"niah: {' '.join(reason.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
