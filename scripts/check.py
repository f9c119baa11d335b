"""Everything that must hold before a change lands: format, lint, types, import contracts, all tests.

python scripts/check.py            all of it
python scripts/check.py --quick    the inner loop: no specimen, no browser
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def main() -> int:
    """Run every step, also after one has failed; 0 if all passed."""
    quick = "--quick" in sys.argv[1:]
    steps = [
        ("format", [BIN / "ruff", "format", "--check"]),
        ("lint", [BIN / "ruff", "check"]),
        ("types", [BIN / "pyright", "--pythonpath", sys.executable]),
        ("import contracts", [BIN / "lint-imports"]),
        (
            "tests",
            [
                sys.executable,
                "-m",
                "pytest",
                "-n",
                "2",
                "--dist",
                "loadfile",
                "--no-loadscope-reorder",  # the scan of the specimen begins early, though its file has few tests
                *(["-m", "not specimen and not browser"] if quick else []),
            ],
        ),
    ]
    failed = [name for name, command in steps if not passes(name, command)]
    sys.stdout.write(f"\nFailed: {', '.join(failed)}\n" if failed else "\nEverything holds.\n")
    return 1 if failed else 0


def passes(name: str, command: list[object]) -> bool:
    """Run one step and say how long it took."""
    sys.stdout.write(f"\n== {name}\n")
    sys.stdout.flush()
    start = time.perf_counter()
    code = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    sys.stdout.write(f"-- {name}: {'ok' if code == 0 else f'exit code {code}'}, {time.perf_counter() - start:.0f} s\n")
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
