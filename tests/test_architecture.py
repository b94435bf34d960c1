"""The laws of the house, held against the code's own syntax trees: which way imports run, sizes, what is not done."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
MAX_FUNCTION = 60
HEAVY = ("torch", "torchvision", "timm", "numpy", "pandas", "mlflow", "submitit")
LEAVES = (
    "clever.names", "clever.errors", "clever.files", "clever.catalog", "clever.recipes", "clever.computing",
    "clever.evaluations", "clever.spec",
)  # fmt: skip
BELOW_TRAIN = (*LEAVES, "clever.data", "clever.backbones", "clever.methods")
SUBFOLDERS = ("backbones", "bench", "commands", "data", "evaluate", "experiments", "methods", "reports", "run", "train")
MAY_IMPORT: dict[str, tuple[str, ...]] = {  # besides modules of its own folder; "core" is every flat module of clever
    "core": (),
    "data": LEAVES,
    "backbones": LEAVES,
    "methods": (*LEAVES, "clever.backbones"),
    "train": BELOW_TRAIN,
    "evaluate": (*BELOW_TRAIN, "clever.train.batch_norm", "clever.train.checkpoint", "clever.train.distributed"),
    "run": ("core",),
    "reports": ("core",),
    "commands": ("clever",),
    "bench": ("clever",),
}
WORK = "clever.run.tasks"  # what a job does: the worker loads it, and torch with it, once it is inside the job
WORK_MAY_IMPORT = ("clever.data", "clever.train", "clever.evaluate")
WORKERS = ("clever.run.worker", "clever.run.slurm.job")
NEVER_IN: dict[str, tuple[str, ...]] = {
    "core": HEAVY,
    "reports": ("torch", "torchvision", "timm", "submitit", "mlflow"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = {re.split(r"[<>=!~;\[ ]", text)[0].lower() for text in PROJECT["project"]["dependencies"]}
INSTALLED_AS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
ONLY_IN = {"mlflow": "clever.run.tracking", "submitit": "clever.run.slurm.script"}


@dataclass(frozen=True)
class Module:
    """One Python file under its dotted name ("clever.run.worker", "cli", "tests.test_spec")."""

    name: str
    source: str
    is_package: bool = False

    @property
    def area(self) -> str:
        """The part of the house: "core", a subfolder of clever, or "outside" (cli, tests)."""
        top, *rest = self.name.split(".")
        if top != "clever":
            return "outside"
        return rest[0] if rest and rest[0] in SUBFOLDERS else "core"


@dataclass(frozen=True)
class Import:
    name: str  # absolute and dotted, with the imported name at its end
    line: int
    in_body: bool  # inside a function


def modules(*folders: str) -> Iterator[Module]:
    """Every Python file below ``folders`` of the checkout, under the name that it is imported by."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[0] in ("reports", "experiments"):
                parts.insert(0, "clever")
            is_package = parts[-1] == "__init__"
            yield Module(".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package)


def imports(module: Module) -> list[Import]:
    """All imports of a module: statements wherever they stand, and import_module or __import__ of a literal name."""
    found: list[Import] = []

    def visit(node: ast.AST, in_body: bool) -> None:
        found.extend(Import(name, node.lineno, in_body) for name in _imported(node, module))
        in_body = in_body or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, in_body)

    visit(ast.parse(module.source), False)
    return found


def _imported(node: ast.AST, module: Module) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = module.name.split(".")
        keep = len(parents) - node.level + (1 if module.is_package else 0)
        base = ".".join([*(parents[:keep] if node.level else []), *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and called(node) in ("import_module", "importlib.import_module", "__import__"):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def inside(name: str, folder: str) -> bool:
    """Whether a dotted name is ``folder`` or below it; the folder "core" stands for clever's flat modules."""
    if folder == "core":
        parts = name.split(".")
        return parts[0] == "clever" and (len(parts) == 1 or parts[1] not in SUBFOLDERS)
    return name == folder or name.startswith(f"{folder}.")


def imports_run_one_way(module: Module) -> Iterator[str]:
    if module.area == "outside":
        return
    own = "core" if module.area == "core" else f"clever.{module.area}"
    allowed = (own, *MAY_IMPORT.get(module.area, ()), *(WORK_MAY_IMPORT if module.name == WORK else ()))
    for found in imports(module):
        if inside(found.name, "clever") and found.name != "clever" and not any(inside(found.name, a) for a in allowed):
            yield f"line {found.line}: {module.area} does not import {found.name}"


def only_the_worker_loads_the_work(module: Module) -> Iterator[str]:
    for found in imports(module):
        if inside(found.name, WORK) and not (module.name in WORKERS and found.in_body):
            yield f"line {found.line}: only functions of {' and '.join(WORKERS)} import {WORK}"


def heavy_libraries_stay_out(module: Module) -> Iterator[str]:
    for found in imports(module):
        library = found.name.split(".")[0]
        if library in NEVER_IN.get(module.area, ()):
            yield f"line {found.line}: {module.area} never imports {library}"


def one_place_names_each_service(module: Module) -> Iterator[str]:
    for found in imports(module):
        place = ONLY_IN.get(found.name.split(".")[0])
        if place and not inside(module.name, place):
            yield f"line {found.line}: only {place} imports {found.name}"


def libraries_are_declared(module: Module) -> Iterator[str]:
    for found in imports(module):
        library = found.name.split(".")[0]
        known = library == "clever" or library in sys.stdlib_module_names
        if not known and INSTALLED_AS.get(library, library).lower() not in DECLARED:
            yield f"line {found.line}: {library} is no dependency of pyproject.toml"


def nobody_imports_experiments(module: Module) -> Iterator[str]:
    for found in imports(module):
        if inside(found.name, "experiments") or inside(found.name, "clever.experiments"):
            yield f"line {found.line}: experiments are data, read through importlib.resources"


def experiments_hold_no_code(module: Module) -> Iterator[str]:
    if module.area == "experiments" and ast.parse(module.source).body[1:]:
        yield f"{module.name} is code; experiments/ holds YAML files"


def nothing_is_printed(module: Module) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Call) and called(node) == "print":
            yield f"line {node.lineno}: print()"


def weights_are_loaded_without_code(module: Module) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.Call) and called(node) == "torch.load":
            if "weights_only=True" not in [ast.unparse(keyword) for keyword in node.keywords]:
                yield f"line {node.lineno}: torch.load without weights_only=True"


def files_begin_by_saying_what_they_hold(module: Module) -> Iterator[str]:
    tree = ast.parse(module.source)
    if tree.body and not ast.get_docstring(tree):
        yield "no docstring at the top"


def files_are_short(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines, more than {MAX_LINES}"


def functions_are_short(module: Module) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION:
                yield f"line {node.lineno}: {node.name} has {lines} lines, more than {MAX_FUNCTION}"


def no_home_paths(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if re.search(r"/(?:home|root|Users)/", line):
            yield f"line {number}: a path of somebody's machine"


Law = Callable[[Module], Iterator[str]]
PACKAGE_LAWS: tuple[Law, ...] = (
    imports_run_one_way,
    only_the_worker_loads_the_work,
    heavy_libraries_stay_out,
    one_place_names_each_service,
    libraries_are_declared,
    nobody_imports_experiments,
    experiments_hold_no_code,
    nothing_is_printed,
)
LAWS_FOR_ALL: tuple[Law, ...] = (
    weights_are_loaded_without_code,
    files_begin_by_saying_what_they_hold,
    files_are_short,
    functions_are_short,
    no_home_paths,
)
PACKAGE = ("clever", "reports", "experiments")


def assert_kept(law: Law, *found: Module) -> None:
    complaints = [f"{module.name}: {complaint}" for module in found for complaint in law(module)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("law", PACKAGE_LAWS + LAWS_FOR_ALL, ids=lambda law: law.__name__)
def test_the_package_keeps_the_law(law):
    assert_kept(law, *modules(*PACKAGE))


@pytest.mark.parametrize("law", LAWS_FOR_ALL, ids=lambda law: law.__name__)
def test_tests_and_the_launcher_keep_the_law(law):
    launcher = Module("cli", (ROOT / "cli.py").read_text(encoding="utf-8"))
    assert_kept(law, launcher, *modules("tests"))


def test_data_and_documents_name_no_home_folder():
    kinds = {".yaml", ".csv", ".md", ".toml", ".txt", ".json"}
    files = [*ROOT.iterdir(), *(path for folder in PACKAGE for path in (ROOT / folder).rglob("*"))]
    texts = [path for path in files if path.suffix in kinds or path.name == "Makefile"]
    assert texts
    assert_kept(no_home_paths, *(Module(path.name, path.read_text(encoding="utf-8")) for path in texts))


VIOLATIONS: list[tuple[Law, str, str]] = [
    (imports_run_one_way, "clever.plan", "from clever.run import status"),
    (imports_run_one_way, "clever.plan", "def body():\n    import clever.reports.tables"),
    (imports_run_one_way, "clever.plan", "from .data import loader"),
    (imports_run_one_way, "clever.plan", "import importlib\nimportlib.import_module('clever.train')"),
    (imports_run_one_way, "clever.data.loader", "from clever.backbones import build_backbone"),
    (imports_run_one_way, "clever.data.loader", "from clever import store"),
    (imports_run_one_way, "clever.backbones.vit", "from clever.data import datasets"),
    (imports_run_one_way, "clever.methods.dino", "from clever.data.augment import view_recipes"),
    (imports_run_one_way, "clever.methods.dino", "from ..train import optim"),
    (imports_run_one_way, "clever.train.pretrain", "from clever.evaluate.probe import probe"),
    (imports_run_one_way, "clever.train.pretrain", "from clever.store import Store"),
    (imports_run_one_way, "clever.train.pretrain", "def body():\n    from clever.run.tracking import mirror"),
    (imports_run_one_way, "clever.evaluate.probe", "from clever.train.optim import lars"),
    (imports_run_one_way, "clever.run.worker", "def body():\n    from clever.train.pretrain import pretrain"),
    (imports_run_one_way, "clever.run.tasks", "from clever.reports import tables"),
    (only_the_worker_loads_the_work, "clever.run.worker", "from clever.run import tasks"),
    (only_the_worker_loads_the_work, "clever.run.executor", "def body():\n    from .tasks import run"),
    (only_the_worker_loads_the_work, "clever.commands.look", "def body():\n    import clever.run.tasks"),
    (imports_run_one_way, "clever.reports.tables", "from clever.run import status"),
    (imports_run_one_way, "clever.reports.tables", "def body():\n    from clever.train import pretrain"),
    *((heavy_libraries_stay_out, "clever.spec", f"def body():\n    import {library}") for library in HEAVY),
    (heavy_libraries_stay_out, "clever.reports.tables", "def body():\n    import torch.nn"),
    (heavy_libraries_stay_out, "clever.reports.page", "from mlflow import log_metric"),
    (heavy_libraries_stay_out, "clever.reports.page", "import submitit"),
    (one_place_names_each_service, "clever.commands.app", "def body():\n    import mlflow"),
    (one_place_names_each_service, "clever.run.executor", "from mlflow.tracking import MlflowClient"),
    (one_place_names_each_service, "clever.run.worker", "def body():\n    import submitit.helpers"),
    (libraries_are_declared, "clever.grid", "def body():\n    from requests import get"),
    (nobody_imports_experiments, "clever.grid", "from clever import experiments"),
    (nobody_imports_experiments, "clever.grid", "def body():\n    import experiments"),
    (nobody_imports_experiments, "clever.grid", "from .experiments import profiles"),
    (experiments_hold_no_code, "clever.experiments", '"""Data."""\nGRID = {}'),
    (nothing_is_printed, "clever.plan", "def body():\n    print('done')"),
    (weights_are_loaded_without_code, "clever.train.checkpoint", "import torch\ntorch.load(path)"),
    (weights_are_loaded_without_code, "clever.train.checkpoint", "import torch\ntorch.load(path, weights_only=False)"),
    (files_begin_by_saying_what_they_hold, "clever.plan", "import json"),
    (files_are_short, "clever.plan", "x = 1\n" * (MAX_LINES + 1)),
    (functions_are_short, "clever.plan", "def long():\n" + "    x = 1\n" * MAX_FUNCTION),
    (no_home_paths, "clever.settings", f"STORE = '/{'home'}/someone/runs'"),
]
ALLOWED: list[tuple[Law, str, str]] = [
    (imports_run_one_way, "clever.plan", "import clever\nfrom clever import __version__, store\nfrom . import grid"),
    (imports_run_one_way, "clever.data.loader", "from clever.names import Pipeline\nfrom .augment import ViewRecipe"),
    (imports_run_one_way, "clever.evaluate.probe", "from clever.train import checkpoint\nimport clever.data.loader"),
    (imports_run_one_way, "clever.run.tasks", "from clever.train.pretrain import pretrain"),
    (only_the_worker_loads_the_work, "clever.run.worker", "def body():\n    from clever.run import tasks"),
    (imports_run_one_way, "clever.commands.app", "def body():\n    from clever.reports import tables"),
    (heavy_libraries_stay_out, "clever.reports.tables", "import pandas"),
    (one_place_names_each_service, "clever.run.tracking", "def body():\n    import mlflow"),
    (one_place_names_each_service, "clever.run.slurm.script", "def body():\n    import submitit"),
    (libraries_are_declared, "clever.grid", "import tomllib, yaml\nfrom PIL import Image"),
    (nobody_imports_experiments, "clever.grid", "from importlib.resources import files\nfiles('clever.experiments')"),
    (nothing_is_printed, "clever.commands.out", "console.print('done')"),
    (functions_are_short, "clever.plan", "def fits():\n" + "    x = 1\n" * (MAX_FUNCTION - 1)),
]


@pytest.mark.parametrize(("law", "name", "source"), VIOLATIONS)
def test_a_law_notices_its_violation(law, name, source):
    assert len(list(law(Module(name, source)))) == 1


@pytest.mark.parametrize(("law", "name", "source"), ALLOWED)
def test_a_law_lets_pass_what_is_allowed(law, name, source):
    assert list(law(Module(name, source))) == []


def test_every_law_is_shown_able_to_fail():
    assert {law for law, _, _ in VIOLATIONS} == set(PACKAGE_LAWS + LAWS_FOR_ALL)


def test_every_folder_of_the_package_has_its_law():
    folders = {path.parent.name for path in (ROOT / "clever").glob("*/__init__.py")} | {"reports", "experiments"}
    assert folders == set(SUBFOLDERS)
    assert set(MAY_IMPORT) == folders - {"experiments"} | {"core"}


def test_relative_imports_are_resolved_from_modules_and_from_packages():
    module, package = Module("clever.run.status", "from ..a import b"), Module("clever.run", "from .a import b", True)
    assert [found.name for found in imports(module) + imports(package)] == ["clever.a.b", "clever.run.a.b"]


def loaded_by(names: list[str]) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after importing ``names``."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(HEAVY) & set(done.stdout.split())


def test_a_login_node_loads_nothing_heavy():
    names = [module.name for module in modules("clever") if module.area in ("core", "commands", "run")]
    names.remove(WORK)
    assert {"clever", "clever.spec", *WORKERS} <= set(names)
    assert loaded_by(names) == set()


def test_reports_load_neither_torch_nor_a_service():
    names = [module.name for module in modules("reports")]
    assert loaded_by(names) & set(NEVER_IN["reports"]) == set()


def test_the_check_for_loaded_libraries_notices_one():
    assert loaded_by(["clever", "numpy"]) == {"numpy"}


def test_nothing_generic_is_installed_at_the_top_level():
    settings = PROJECT["tool"]["setuptools"]
    assert {name.split(".")[0] for name in settings["packages"]} == {"clever"}
    assert "py-modules" not in settings
