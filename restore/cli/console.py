"""Terminal output of the commands: progress bars, tables and lines."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer


def echo(line: str) -> None:
    """Print a line on stderr, which carries progress, warnings and errors."""
    typer.echo(line, err=True)


@contextmanager
def loading() -> Iterator[None]:
    """Pause garbage collection while a command imports its modules and opens its models.

    Collections would scan hundreds of thousands of new objects that all stay alive: 0.3 s of the 1.6 s that importing
    PyTorch takes. The objects are also excluded from later collections.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, err: bool = False) -> None:
    """Print aligned columns on stdout or stderr. The last column is not padded."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header) - 1)]
    for row in [header, *rows]:
        line = "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths))
        typer.echo(f"{line}  {row[-1]}".rstrip(), err=err)


class Progress:
    """A progress bar on stderr, shown only on a terminal."""

    def __init__(self, what: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=total)
        self._finished = 0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def at(self, done: int, total: int, what: str | None = None) -> None:
        """Show that `done` of `total` are done; `what` replaces the description."""
        self._bar.update(self._task, completed=done, total=total, description=what)

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to show it."""
        return not self._bar.disable

    def finished(self, record: object, done: int, total: int) -> None:
        """Show that an image is finished: the `progress` of a run."""
        self._finished = done
        self.at(done, total)

    def part(self, share: float) -> None:
        """Show how much of a video is done: the `part_progress` of a run."""
        self._bar.update(self._task, completed=self._finished + share)


class TrainingDisplay:
    """A progress bar with losses, images/s and time left on a terminal; plain lines elsewhere."""

    def __init__(self, total_steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from restore.training.loop import TrainCallbacks

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("step {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total_steps, losses="")
        self.report = TrainCallbacks(on_event=self._line, logged=self._logged, validated=self._validated)

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def _line(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _logged(self, step: int, total: int, values: dict[str, float]) -> None:
        terms = {k: v for k, v in values.items() if k not in ("lr", "images_per_second")}
        losses = " ".join(f"{k} {v:.4g}" for k, v in terms.items()) + f" | {values['images_per_second']:.1f} images/s"
        self._bar.update(self._task, completed=step, total=total, losses=losses)
        if not self._console.is_terminal:
            left = (total - step) / max(values["images_per_second"], 1e-9)
            self._line(f"step {step}/{total} {losses}" + (f" lr {values['lr']:.2g}" if left else ""))

    def _validated(self, step: int, scores: dict[str, float], best: bool) -> None:
        text = " ".join(f"{k} {v:.4f}" for k, v in scores.items())
        self._line(f"validation at step {step}: {text}{' (best)' if best else ''}")
