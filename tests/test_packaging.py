"""What is installed: the pins, the list of packages, and a wheel that works far from the checkout."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import clever

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
FOLDERS = ("clever", "reports", "experiments")
IMPORT_ALL = """
import clever, clever.reports, clever.experiments, importlib.resources, json, sys
data = importlib.resources.files("clever.experiments").joinpath("table3.yaml").is_file()
sys.stdout.write(json.dumps([clever.__file__, clever.reports.__file__, clever.experiments.__file__, data]))
"""


def direct_requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    return [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["test"]]


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in CONSTRAINTS)}


def needed_here(requirements: list[Requirement]) -> set[str]:
    """Names of all installed distributions that ``requirements`` lead to on this interpreter and system."""
    seen: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in importlib.metadata.requires(name) or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return {name for name, _ in seen}


def run(*command: str, cwd: Path, **environment: str) -> str:
    """What a program prints on stdout; fails with its stderr. The checkout is not on its path."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of_the_package(checkout: Path) -> Iterator[str]:
    """Where an installation puts each file of the package's folders."""
    for folder in FOLDERS:
        for path in sorted((checkout / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                inner = path.relative_to(checkout).as_posix()
                yield inner if folder == "clever" else f"clever/{inner}"


def test_every_package_on_disk_is_installed():
    found = [Path(name).parent for name in files_of_the_package(ROOT) if name.endswith("__init__.py")]
    assert PYPROJECT["tool"]["setuptools"]["packages"] == sorted(".".join(folder.parts) for folder in found)


def test_every_line_of_the_constraints_is_one_exact_pin():
    wrong = [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)]
    assert wrong == []
    assert len(pins()) == len(CONSTRAINTS)


def test_the_pins_satisfy_what_the_project_asks_for():
    for requirement in direct_requirements():
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_every_distribution_that_gets_installed_is_pinned():
    assert needed_here(direct_requirements()) - set(pins()) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="the pins are those of Linux; other systems need fewer")
def test_no_pin_is_left_over():
    assert set(pins()) - needed_here(direct_requirements()) == set()


def test_the_transitive_walk_finds_what_a_dependency_asks_for():
    assert "markdown-it-py" in needed_here([Requirement("rich")])
    assert "markdown-it-py" not in needed_here([Requirement("packaging")])


def test_a_checkout_on_the_path_offers_every_package(tmp_path):
    files = json.loads(run(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    assert files == [str(ROOT / folder / "__init__.py") for folder in FOLDERS] + [True]


def test_the_launcher_runs_from_any_folder(tmp_path):
    assert "Usage" in run(sys.executable, str(ROOT / "cli.py"), "--help", cwd=tmp_path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel of a copy of this checkout was installed; the wheel lies beside it."""
    pytest.importorskip("setuptools", minversion="77.0.3", reason="building needs the setuptools of the `test` extra")
    base = tmp_path_factory.mktemp("wheel")
    checkout, target = base / "checkout", base / "installed"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(base), str(checkout), cwd=base)
    (wheel,) = base.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=base)
    return target


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(installed):
    (wheel,) = installed.parent.glob("clever-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"clever", f"{wheel.name.split('-py3')[0]}.dist-info"}
    ours = set(files_of_the_package(installed.parent / "checkout"))
    assert {name for name in names if name.startswith("clever/")} == ours


@pytest.mark.slow
def test_the_wheel_names_version_licence_and_command(installed):
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    assert found.version == clever.__version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    assert [(entry.name, entry.value) for entry in found.entry_points] == [("clever", "clever.commands.app:main")]


@pytest.mark.slow
def test_the_installed_package_imports_nothing_of_the_checkout(installed, tmp_path):
    files = json.loads(run(sys.executable, "-c", IMPORT_ALL, cwd=tmp_path, PYTHONPATH=str(installed)))
    folders = [installed / "clever" / inner for inner in ("", "reports", "experiments")]
    assert files == [str(folder / "__init__.py") for folder in folders] + [True]


@pytest.mark.slow
def test_the_installed_command_plans_table_3_for_the_paper(installed, tmp_path):
    command = (str(installed / "bin" / "clever"), "plan", "table3", "--profile", "paper", "--json")
    plan = json.loads(run(*command, cwd=tmp_path, PYTHONPATH=str(installed)))
    assert plan["targets"] == ["table3"]
    assert plan["counts"]["pretrain"] == 6
