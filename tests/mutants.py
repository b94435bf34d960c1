"""Plants known faults into a copy of the code, one at a time; each must turn its named test red.

    python tests/mutants.py [WORD]      only faults whose name contains WORD

Green tests over wrong science are the worst bug this project can have: this file shows that the tests would notice.
The faults stand in `tests/mutants.yaml`: a file, a piece of its text, what is put in its place, and the test.
"""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("clever", "experiments", "reports", "tests", "pyproject.toml", "cli.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    test: str


def faults() -> list[Fault]:
    return [Fault(**entry) for entry in yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text())]


def copy_tree(target: Path) -> None:
    target.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "runs")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=skip)
        elif source.exists():
            shutil.copy(source, target / part)


def run_test(tree: Path, *tests: str) -> tuple[int, str]:
    """Pytest's exit code and output, from the copy and without the installed package."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return ended.returncode, ended.stdout + ended.stderr


def try_fault(fault: Fault, folder: Path) -> str | None:
    """None if the named test noticed the fault; otherwise what went wrong."""
    tree = folder / fault.name.replace(" ", "-").replace("/", "-")
    copy_tree(tree)
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        return f"`{fault.old}` stands {text.count(fault.old)} times in {fault.file}, not once"
    path.write_text(text.replace(fault.old, fault.new))
    code, output = run_test(tree, fault.test)
    shutil.rmtree(tree)
    if code == 1:
        return None
    if code == 0:
        return f"{fault.test} stays green"
    return f"{fault.test} could not be run (exit code {code}):\n{output[-2000:]}"


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [fault for fault in faults() if word in fault.name]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder / "sound")
        code, output = run_test(folder / "sound", *sorted({fault.test for fault in chosen}))
        if code:
            sys.stderr.write(f"the tests must be green on the code as it is:\n{output[-4000:]}\n")
            return 1
        missed = 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for fault, problem in zip(chosen, pool.map(lambda f: try_fault(f, folder), chosen), strict=True):
                missed += problem is not None
                sys.stdout.write(f"{'noticed' if problem is None else 'MISSED '}  {fault.name}\n")
                if problem:
                    sys.stdout.write(f"         {problem}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} planted faults were noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
