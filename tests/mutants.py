"""Plants known faults into a copy of the code, one at a time; each must turn its named test red.

    python tests/mutants.py [WORD]      only faults whose name contains WORD

Green tests over wrong science are the worst bug this project can have: this file shows that the tests would notice.
The faults stand in `tests/mutants.yaml`: a file, a piece of its text, what is put in its place, and the test.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before torch is imported

import pytest
import torchvision.transforms.v2  # noqa: F401 - only so that the tests need not load it
import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("clever", "experiments", "reports", "tests", "pyproject.toml", "cli.py", "README.md", "LICENSE")
# Every test runs in a fork of this process, which has loaded the large libraries but nothing of our own: once for all.
FORK = multiprocessing.get_context("fork")
SECONDS = 600.0  # for one test; a fault may well make it wait for ever


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    test: str


def faults() -> list[Fault]:
    return [Fault(**entry) for entry in yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text())]


def copy_tree(target: Path) -> Path:
    target.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "runs")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=skip)
        elif source.exists():
            shutil.copy(source, target / part)
    return target


class Trial:
    """Tests that run in a copy of the code, in a process of their own."""

    def __init__(self, tree: Path, *tests: str):
        self.output = tree / "output.txt"
        self.process = FORK.Process(target=run_tests, args=(tree, self.output, tests))
        self.process.start()

    def end(self) -> tuple[int, str]:
        """Pytest's exit code and output; a code below 0 where the process was killed."""
        self.process.join(SECONDS)
        self.process.kill()
        self.process.join()
        return self.process.exitcode, self.output.read_text()


def run_tests(tree: Path, output: Path, tests: tuple[str, ...]) -> None:
    """Only in a fork: the copy comes before the checkout and before the installed package."""
    os.chdir(tree)
    sys.path[0] = str(tree)  # was the folder of this script
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # not through what this process would do at its own end


def plant(fault: Fault, tree: Path) -> str | None:
    """Plant the fault in a copy of the code; where it cannot be planted, why."""
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        return f"`{fault.old}` stands {text.count(fault.old)} times in {fault.file}, not once"
    path.write_text(text.replace(fault.old, fault.new))
    return None


def verdict(fault: Fault, code: int, output: str) -> str | None:
    """None if the named test noticed the fault; otherwise what went wrong."""
    if code == 1:
        return None
    if code == 0:
        return f"{fault.test} stays green"
    return f"{fault.test} could not be run (exit code {code}):\n{output[-2000:]}"


def outcomes(chosen: list[Fault], folder: Path) -> Iterator[tuple[Fault, str | None]]:
    """Each fault with what went wrong, as they end; as many at a time as there are processors."""
    running: dict[int, tuple[Fault, Trial]] = {}
    for number, fault in enumerate(chosen):
        tree = copy_tree(folder / str(number))
        if problem := plant(fault, tree):
            yield fault, problem
            continue
        trial = Trial(tree, fault.test)
        running[trial.process.sentinel] = fault, trial
        while len(running) >= (os.cpu_count() or 1):
            yield from ended(running)
    while running:
        yield from ended(running)


def ended(running: dict[int, tuple[Fault, Trial]]) -> Iterator[tuple[Fault, str | None]]:
    """Wait until at least one trial has ended (or nothing has for too long), and take those out."""
    for sentinel in wait(list(running), SECONDS) or list(running):
        fault, trial = running.pop(sentinel)
        yield fault, verdict(fault, *trial.end())
        shutil.rmtree(trial.output.parent)


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [fault for fault in faults() if word in fault.name]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, output = Trial(copy_tree(folder / "sound"), *sorted({fault.test for fault in chosen})).end()
        if code:
            sys.stderr.write(f"the tests must be green on the code as it is:\n{output[-4000:]}\n")
            return 1
        for fault, problem in outcomes(chosen, folder):
            missed += problem is not None
            sys.stdout.write(f"{'noticed' if problem is None else 'MISSED '}  {fault.name}\n")
            if problem:
                sys.stdout.write(f"         {problem}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} planted faults were noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
