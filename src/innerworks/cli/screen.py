"""What a person sees while something runs: progress and notices go to standard error, results to standard output.

Names of files, models and domains are printed as they are: brackets and colons in them mean nothing to these consoles. What must
come out letter for letter (paths, JSON) goes past them, through `typer.echo`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from innerworks.scan import Step


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints what it is given."""
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


errors, output = console(stderr=True), console()
LINE_EVERY = 10.0  # seconds, where standard error is no terminal


class _Rate(ProgressColumn):
    """Units per second since the stage began."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0.0
        unit = task.fields["unit"]
        return Text(f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.2g} {unit}/s")


class ScanProgress:
    """A bar per stage on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}", markup=False),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=errors,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._said = 0.0

    def __enter__(self) -> "ScanProgress":
        if errors.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if errors.is_terminal:
            self._bars.stop()

    def __call__(self, step: "Step") -> None:
        """Show one step."""
        count = f"{step.done:,.0f}" + (f" / {step.total:,.0f} {step.unit}" if step.total else f" {step.unit}")
        if not errors.is_terminal:
            self._line(step, count)
            return
        if step.stage not in self._tasks:
            self._tasks[step.stage] = self._bars.add_task(step.stage, total=step.total, unit=step.unit, count=count)
        self._bars.update(self._tasks[step.stage], completed=step.done, total=step.total, count=count)

    def _line(self, step: "Step", count: str) -> None:
        now = time.monotonic()
        began = self._began.setdefault(step.stage, now)
        finished = step.total is not None and step.done >= step.total
        if finished or now - self._said >= LINE_EVERY:
            self._said = now
            errors.print(f"{step.stage}: {count}, {now - began:.0f} s")


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is going on while something takes a moment."""
    if errors.is_terminal:
        with errors.status(Text(what)):
            yield
    else:
        errors.print(what)
        yield
