"""A phantom saved as a person would have it, a model's folder and a .jsonl file; scanned once for all tests that only look."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

SEQUENCES = 32  # generated repeats in these tests, instead of 64
DOCUMENTS = 30


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/` from save_pretrained and `text.jsonl`."""
    from innerworks.phantoms import build

    folder = tmp_path_factory.mktemp("phantom")
    phantom = build("llama", seed=0)
    phantom.hf.save_pretrained(folder / "model")
    phantom.tokenizer.save_pretrained(folder / "model")
    lines = [json.dumps({"id": f"{i:02d}", "text": text}) for i, text in enumerate(phantom.documents(DOCUMENTS, words=80))]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session", autouse=True)
def small_and_single() -> Iterator[None]:
    """One thread, fewer repeats: a scan takes about three seconds."""
    import innerworks.scan.run as run

    threads, whole = torch.get_num_threads(), run.read
    torch.set_num_threads(1)
    run.read = functools.partial(whole, sequences=SEQUENCES)  # type: ignore[assignment]
    yield
    run.read = whole
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(phantom_folder: Path) -> Any:
    import innerworks as iw

    return iw.load(phantom_folder / "model")


@pytest.fixture(scope="session")
def scan(model: Any, phantom_folder: Path) -> Callable[..., Any]:
    """`scan(out)`: a quick scan of the phantom on its text."""
    import innerworks as iw

    def run(out: Path, **options: Any) -> Any:
        chosen = {"corpus": f"file:{phantom_folder / 'text.jsonl'}", "depth": "quick", **options}
        return iw.scan(chosen.pop("model", model), out=out, **chosen)

    return run


@pytest.fixture(scope="session")
def steps() -> list[Any]:
    """What the scan of `atlas` reported of its progress."""
    return []


@pytest.fixture(scope="session")
def atlas(scan: Callable[..., Any], steps: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The finished atlas; nobody may change it."""
    return scan(tmp_path_factory.mktemp("scan") / "phantom.atlas", progress=steps.append)
