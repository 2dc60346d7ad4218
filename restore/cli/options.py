"""The Typer app, its global options, and options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer
import typer.core

from restore import __version__
from restore.errors import RestoreError
from restore.fix.batch_options import BatchOptions, declared
from restore.fix.option_values import Option, alternatives, flag

if TYPE_CHECKING:
    from restore.cluster.options import ClusterOptions


class Group(typer.core.TyperGroup):
    """A command group whose help lists the whole first sentence of every command's help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands. Typer's own version truncates lines."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        rows = [(name, _first_sentence(one.help or "")) for name, one in commands.items() if not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Command(typer.core.TyperCommand):
    """A command whose help shows its options in panels, in plain text; Typer's own panels need Rich, which is slow."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments and for every panel."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{panel: [] for panel in PANELS}, "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                if is_argument:  # Typer's type says no more than the name
                    record = (record[0].partition(" <")[0], record[1])
                panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                panels.setdefault(panel, []).append(record)
        for panel, rows in panels.items():
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


#: Sections of the help of commands, in order.
PANELS = (
    "Server", "What to repair", "Masks", "Video", "Files", "Output", "Scores", "Speed", "Cluster", "Safety", "Reports",
)  # fmt: skip

app = typer.Typer(
    name="restore",
    cls=Group,
    help="Repair damaged photographs, score the results, and train the networks that do it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 success; 1 some files failed (all others are done); 2 the command was wrong, and nothing was "
    "written; 3 training diverged; 4 training lost one of its processes; 130 interrupted.",
)

Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel="Speed")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16|fp16",
        help="Precision of the networks. auto: half precision where the hardware is fast at it.",
        rich_help_panel="Speed",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|openvino|onnx",
        help="Engine that runs the networks on a CPU: PyTorch, OpenVINO or onnxruntime. auto: the fastest one that is "
        "installed and gives the same results.",
        rich_help_panel="Speed",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="An image, or a folder of images (recursive); - is standard input. Several inputs go into the "
        "folder OUTPUT under their names.",
    ),
]
Convention = Annotated[
    str,
    typer.Option(
        metavar="skimage|matlab|y-channel",
        help="How PSNR and SSIM are computed.",
        rich_help_panel="Scores",
    ),
]
LpipsNet = Annotated[str, typer.Option(metavar="alex|vgg|squeeze", help="Backbone of LPIPS.", rich_help_panel="Scores")]
LpipsWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of that backbone, for machines that cannot download them.",
        rich_help_panel="Scores",
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Folder of masks with the names of the images, or the mask of one image; white = hole.",
        rich_help_panel="Scores",
    ),
]

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Share the images among the workers of a Ray cluster: auto (the one that this machine belongs to), local "
        "(started on this machine for the run), or an address.",
        rich_help_panel="Cluster",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--ray-workers",
        min=1,
        metavar="N",
        help="Number of processes that hold the models. Default: one for each processor of the cluster except one, or "
        "for each share of its GPUs.",
        rich_help_panel="Cluster",
    ),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(
        "--cpus-per-worker",
        min=1,
        metavar="N",
        help="Processors, and threads, of each worker. Default: 1, with GPUs up to 4.",
        rich_help_panel="Cluster",
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        min=0,
        metavar="X",
        help="GPUs of each worker; below 1, several workers share a GPU.",
        rich_help_panel="Cluster",
    ),
]


def cluster_of(
    ray: str | None, workers: int | None, cpus_per_worker: int | None, gpus_per_worker: float
) -> ClusterOptions | None:
    """The cluster of a command; None without one.

    Raises:
        RestoreError: exit code 2; an option needs `--ray`.
    """
    given = (("--ray-workers", workers), ("--cpus-per-worker", cpus_per_worker), ("--gpus-per-worker", gpus_per_worker))
    if ray is None:
        for name, value in given:
            if value:
                raise RestoreError("requires --ray", where=name, hint="add --ray auto, or leave it out")
        return None
    from restore.cluster.options import ClusterOptions

    return ClusterOptions(
        address=ray, workers=workers, cpus_per_worker=cpus_per_worker, gpus_per_worker=gpus_per_worker
    )


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"restore {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def _first_sentence(text: str) -> str:
    words = " ".join(text.split())
    end = words.find(". ")
    return words if end < 0 else words[: end + 1]


# Names of earlier versions.

_CONVENTION = {"--convention y-studio": "--convention y-channel"}
_DECODING = {"--truncated accept": "--allow-truncated", "--truncated fail": "", "--decode-seconds": "--decode-timeout"}

#: Old spellings that still work in this release, by command; "" has renamed commands. An old spelling of two words is
#: an option with one of its values. A new spelling of "" means that this is the default now.
RENAMED: dict[str, dict[str, str]] = {
    "": {"show": "compare"},
    "fix": {
        "--fade": "--correct-fading",
        "--mask-missing clean": "--mask-missing copy",
        "--html": "--html-report",
        **_DECODING,
    },
    "detect": {"--threshold": "--sensitivity", **_DECODING},
    "eval": {"--border": "--crop-border", "--html": "--html-report", **_CONVENTION},
    "bench": _CONVENTION,
}

#: Old options whose values also change, by command, with the new value of an old one.
_CONVERTED: dict[str, dict[str, Callable[[str], str]]] = {
    "detect": {"--threshold": lambda threshold: f"{1 - float(threshold):.6g}"},
}


def with_new_names(arguments: list[str]) -> tuple[list[str], str]:
    """Replace old spellings in a command line.

    Args:
        arguments: of the program, without its own name.

    Returns:
        The command line in new spellings, and a line that names these; "" if there was nothing to replace.
    """
    place = next((i for i, one in enumerate(arguments) if not one.startswith("-")), len(arguments))
    command = "".join(arguments[place : place + 1])
    new = [*arguments[:place], *([RENAMED[""].get(command, command)] if command else [])]
    replaced = [(command, new[-1])] if command and new[-1] != command else []
    renamed, converted = RENAMED.get("".join(new[place:]), {}), _CONVERTED.get("".join(new[place:]), {})
    rest = arguments[place + 1 :]
    while rest and rest[0] != "--":
        name, equals, value = rest[0].partition("=")
        value = value if equals else "".join(rest[1:2])
        pair = f"{name} {value}"
        if name in converted:
            replaced.append((pair, f"{renamed[name]} {_converted(converted[name], value)}"))
            new += replaced[-1][1].split()
            rest = rest[1 if equals else 2 :]
        elif pair in renamed:
            replaced.append((pair, renamed[pair]))
            new += renamed[pair].split()
            rest = rest[1 if equals else 2 :]
        else:
            if name in renamed:
                replaced.append((name, renamed[name]))
            new.append(renamed.get(name, name) + equals + (value if equals else ""))
            rest = rest[1:]
    changes = [f"{old} is now {name}" if name else f"{old} is now the default" for old, name in dict.fromkeys(replaced)]
    note = f"note: {', '.join(changes)}; old names stop working in the next release" if changes else ""
    return [*new, *rest], note


def _converted(convert: Callable[[str], str], value: str) -> str:
    try:
        return convert(value)
    except ValueError:  # the new option refuses it
        return value


# Commands whose options are declared as fields of a class.


def with_options(options: type[BatchOptions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a parameter for every option of a class. The command receives them as one object, `options`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        entries = {name: entry for name, entry in declared(options).items() if entry[1].cli}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in entries}
            lists = {name: tuple(value or ()) for name, value in chosen.items() if _is_list(entries[name][0])}
            command(options=options.from_dict(chosen | lists), **values)

        own = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]
        parameters = own + [_parameter(options, name, *entry) for name, entry in entries.items()]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(options: type[BatchOptions], name: str, kind: Any, option: Option) -> inspect.Parameter:
    """An option as a parameter of the command line."""
    default = options.__dataclass_fields__[name].default
    parts = [part for part in alternatives(kind) if part is not type(None)]
    names, metavar, completion = [flag(name)], option.metavar, _COMPLETED.get(name)
    bounds: dict[str, Any] = {}
    if parts == [bool]:
        annotation: Any = bool | None if default is None else bool
        names = [f"{flag(name)}/--no-{flag(name)[2:]}"] if default is not False else names
    elif _is_list(kind):
        annotation, default = list[str] | None, None
    elif len(parts) == 1 and (parts[0] in (int, float) or get_origin(parts[0]) is Literal):
        annotation = parts[0] | None if default is None else parts[0]
        bounds = {"min": option.minimum, "max": option.maximum} if parts[0] in (int, float) else {}
    else:  # a union, such as auto|N: `options` parses the text
        annotation, default = (str | None if default is None else str), None if default is None else str(default)
    info = typer.Option(
        *names, help=option.help, rich_help_panel=option.panel, metavar=metavar, autocompletion=completion, **bounds
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


# Shell completion. Names are listed without importing the modules that they stand for, because the prompt waits.

#: Methods without weights (`restore.restorers.classical.CLASSICAL`, which takes seconds to import).
CLASSICAL_NAMES = (
    "telea", "navier-stokes", "biharmonic", "nlmeans", "tv", "deblur",
    "bicubic-x2", "bicubic-x4", "lanczos-x2", "lanczos-x4",
)  # fmt: skip

#: Degradations from the literature (`restore.benchmark.degradations.LITERATURE`, which is slow to import, too).
LITERATURE = (
    "none", "awgn-15", "awgn-25", "awgn-50", "jpeg-10", "jpeg-20", "jpeg-30", "jpeg-40", "bicubic-x2", "bicubic-x4",
)  # fmt: skip


def model_names(incomplete: str) -> list[str]:
    """Names for `--model` that begin with `incomplete`. The shell completes paths itself."""
    from restore.files import user_data

    folders = [Path(__file__).parents[1] / "weights"]
    with suppress(RuntimeError):  # the user has no home
        folders.append(user_data() / "models")
    named = sorted({path.stem for folder in folders for path in folder.glob("*.safetensors")})
    return _beginning(incomplete, [*named, *CLASSICAL_NAMES])


def sensitivities(incomplete: str) -> list[str]:
    """Words for `--sensitivity` that begin with `incomplete`."""
    return _beginning(incomplete, ["gentle", "normal", "strong"])


_COMPLETED = {"detector": model_names, "sensitivity": sensitivities}


def damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` that begin with `incomplete`. The shell completes YAML files itself."""
    return _config_names("damage", incomplete)


def bench_damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` of `restore bench` that begin with `incomplete`."""
    return [*_beginning(incomplete, list(LITERATURE)), *damage_names(incomplete)]


def train_configs(incomplete: str) -> list[str]:
    """Names of shipped training configs that begin with `incomplete`. The shell completes YAML files itself."""
    return _config_names("train", incomplete)


def _config_names(kind: str, incomplete: str) -> list[str]:
    from restore.config import config_names

    return _beginning(incomplete, config_names(kind))


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
