"""A verb of `innerworks`, called in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from typer.testing import CliRunner


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def verb() -> Iterator[Callable[..., Done]]:
    """`verb("collect", "L1.z", "-o", folder)`: what it prints; a failure's line as `main.run` would print it."""
    from innerworks.cli import screen
    from innerworks.cli.main import app
    from innerworks.errors import InnerworksError, UsageError

    threads, consoles = torch.get_num_threads(), (screen.errors, screen.output)
    torch.set_num_threads(1)

    def call(*arguments: Any) -> Done:
        screen.errors, screen.output = screen.console(stderr=True, width=120), screen.console(width=120)
        done = CliRunner().invoke(app, [*map(str, arguments)])
        if isinstance(done.exception, InnerworksError):
            return Done(2 if isinstance(done.exception, UsageError) else 1, done.stdout, f"{done.exception}")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    yield call
    screen.errors, screen.output = consoles
    torch.set_num_threads(threads)
