"""Pinned code: what a snapshot holds, that jobs run it, and that its path is always right."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import clever
from clever.errors import RequestError
from clever.run import snapshot

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import json, sys
from pathlib import Path
import clever, clever.reports
from clever.experiment import experiments
from clever.run.provenance import provenance
from clever.run.snapshot import check_running_from, take
check_running_from(Path(sys.argv[1]))
facts = provenance("cpu", 1, {})
files = [clever.__file__, clever.reports.__file__]
state = [facts["git_sha"], facts["dirty_patch_sha256"]]
sys.stdout.write(json.dumps([files, experiments(), *state, str(take(Path("x")))]))
"""
TAKE = """
import sys
from pathlib import Path
from clever.run.snapshot import take
sys.stdout.write(str(take(Path(sys.argv[1]))))
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all of it")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout, committed, that this process is made to believe it runs from."""
    root = tmp_path / "checkout"
    for name in ("clever/__init__.py", "clever/run/worker.py", "reports/__init__.py", "experiments/a.yaml", "cli.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    (root / "notes.txt").write_text("no part of the package\n")
    commit(root)
    monkeypatch.setattr(clever, "__file__", str(root / "clever/__init__.py"))
    return root


def files(folder: Path) -> dict[str, str]:
    own = (snapshot.ORIGIN, snapshot.PATCH)
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if name not in own}


def test_a_snapshot_holds_what_git_tracks_as_it_is_edited_now(checkout: Path, tmp_path: Path) -> None:
    (checkout / "clever/run/worker.py").write_text("edited\n")
    (checkout / "cli.py").unlink()
    (checkout / "experiments/mine.yaml").write_text("not tracked\n")
    place = snapshot.take(tmp_path / "runs")
    assert place.parent == tmp_path / "runs/code"
    assert files(place) == {
        "clever/__init__.py": "# clever/__init__.py\n",
        "clever/run/worker.py": "edited\n",
        "reports/__init__.py": "# reports/__init__.py\n",
        "experiments/a.yaml": "# experiments/a.yaml\n",
    }
    assert list((tmp_path / "runs/code").iterdir()) == [place], "nothing temporary stays"


def test_the_origin_tells_commit_patch_and_files(checkout: Path, tmp_path: Path) -> None:
    clean = json.loads((snapshot.take(tmp_path) / "origin.json").read_text())
    sha = git(checkout, "rev-parse", "HEAD")
    assert (clean["git_sha"], clean["dirty"], clean["patch_sha256"]) == (sha, False, None)
    (checkout / "clever/run/worker.py").write_text("edited\n")
    place = snapshot.take(tmp_path)
    dirty = json.loads((place / "origin.json").read_text())
    patch = (place / "uncommitted.patch").read_bytes()
    assert (dirty["git_sha"], dirty["dirty"]) == (sha, True)
    assert b"+edited" in patch
    assert dirty["patch_sha256"] == hashlib.sha256(patch).hexdigest()
    assert dirty["files"]["clever/run/worker.py"] == hashlib.sha256(b"edited\n").hexdigest()
    assert dirty["source"] == f"the checkout in {checkout}"
    assert snapshot.git_state(place) == snapshot.git_state(checkout) == (sha, dirty["patch_sha256"])
    assert snapshot.git_state(tmp_path) == (None, None)


def test_equal_code_has_one_snapshot_and_an_edit_another(checkout: Path, tmp_path: Path) -> None:
    first = snapshot.take(tmp_path)
    made = (first / "origin.json").stat().st_ino
    (checkout / "notes.txt").write_text("of no importance\n")
    assert snapshot.take(tmp_path) == first
    assert (first / "origin.json").stat().st_ino == made, "it is not written again"
    (checkout / "clever/__init__.py").write_text("x = 1\n")
    second = snapshot.take(tmp_path)
    assert second != first
    (checkout / "clever/__init__.py").rename(checkout / "clever/other.py")
    git(checkout, "add", "clever/other.py")
    assert snapshot.take(tmp_path) not in (first, second), "a file's name counts too"


def test_a_module_that_git_does_not_track_is_refused(checkout: Path, tmp_path: Path) -> None:
    (checkout / "clever/run/new.py").touch()
    with pytest.raises(RequestError, match=r"clever/run/new\.py in .*`git add`"):
        snapshot.take(tmp_path)
    assert not (tmp_path / "code").exists()
    git(checkout, "add", "clever/run/new.py")
    assert "clever/run/new.py" in files(snapshot.take(tmp_path))


@pytest.mark.parametrize("damage", ["edited", "missing", "added", "no origin", "torn origin"])
def test_a_damaged_snapshot_is_moved_aside_and_made_anew(checkout: Path, tmp_path: Path, damage: str) -> None:
    place = snapshot.take(tmp_path)
    right = files(place)
    worker, origin = place / "clever/run/worker.py", place / "origin.json"
    changes = {
        "edited": lambda: worker.write_text("a quick fix"),
        "missing": worker.unlink,
        "added": lambda: (place / "torch.py").touch(),
        "no origin": origin.unlink,
        "torn origin": lambda: origin.write_text("{"),
    }
    changes[damage]()
    damaged = files(place)
    assert snapshot.take(tmp_path) == place
    assert files(place) == right
    (aside,) = (tmp_path / "code").glob("*.damaged-*")
    assert files(aside) == damaged


def test_what_jobs_compile_is_no_damage(checkout: Path, tmp_path: Path) -> None:
    place = snapshot.take(tmp_path)
    (place / "clever/__pycache__").mkdir()
    (place / "clever/__pycache__/x.pyc").touch()
    snapshot.take(tmp_path)
    assert (place / "clever/__pycache__/x.pyc").exists()


def test_of_many_who_take_it_at_once_all_get_the_same_whole_one(checkout: Path, tmp_path: Path) -> None:
    together, found = threading.Barrier(6), []

    def work() -> None:
        together.wait()
        found.append(snapshot.take(tmp_path))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert list((tmp_path / "code").iterdir()) == [found[0]]
    assert set(found) == {found[0]}


def test_a_folder_that_cannot_be_replaced_is_an_error(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("a file")
    with pytest.raises(OSError):
        snapshot.take(tmp_path)


def test_a_job_whose_code_lies_elsewhere_is_stopped(tmp_path: Path) -> None:
    snapshot.check_running_from(ROOT)
    with pytest.raises(RuntimeError, match=f"{tmp_path}.*{ROOT}"):
        snapshot.check_running_from(tmp_path)


def test_a_job_that_has_only_half_of_its_code_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clever, "__file__", str(tmp_path / "clever/__init__.py"))
    with pytest.raises(RuntimeError, match=r"`clever\.reports`"):
        snapshot.check_running_from(tmp_path)


@pytest.mark.parametrize("trouble", ["no git", "git refuses"])
def test_without_git_a_checkout_counts_as_an_installed_package(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        (checkout / ".git/HEAD").unlink()
    place = snapshot.take(tmp_path)
    origin = json.loads((place / "origin.json").read_text())
    assert "git failed there" in origin["source"]
    assert origin["git_sha"] is None
    assert {"clever/run/snapshot.py", "clever/reports/report.py", "clever/experiments/table3.yaml"} <= set(files(place))


def python(code: str, *arguments: str, path: Path, cwd: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_of_the_package(target: Path) -> Path:
    for folder in ("clever", "reports", "experiments"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "pyproject.toml"):
        shutil.copy(ROOT / name, target)
    return target


def test_what_runs_is_the_snapshot_whatever_becomes_of_the_checkout(tmp_path: Path) -> None:
    root = copy_of_the_package(tmp_path / "checkout")
    sha = commit(root)
    with (root / "clever/errors.py").open("a") as file:
        file.write("# an uncommitted edit\n")
    place = Path(python(TAKE, str(tmp_path / "runs"), path=root, cwd=tmp_path))
    origin = json.loads((place / "origin.json").read_text())
    for name in ("clever/__init__.py", "reports/__init__.py"):
        (root / name).write_text("raise SystemExit('the code of tomorrow')\n")
    shutil.rmtree(root / "experiments")
    loaded, experiments, *state, again = json.loads(python(IMPORT_ALL, str(place), path=place, cwd=root))
    assert loaded == [str(place / "clever/__init__.py"), str(place / "reports/__init__.py")]
    assert "table3" in experiments
    assert state == [sha, origin["patch_sha256"]]
    assert origin["patch_sha256"] is not None
    assert again == str(place), "a job that submits jobs passes on its own code"
    assert "Usage" in python("from clever.commands.app import main; main()", "--help", path=place, cwd=root)


def test_an_installed_package_is_copied_whole(tmp_path: Path) -> None:
    root, site = copy_of_the_package(tmp_path / "checkout"), tmp_path / "site-packages"
    (site / "another").mkdir(parents=True)
    (site / "another/module.py").touch()
    (root / "clever").rename(site / "clever")
    for folder in ("reports", "experiments"):
        (root / folder).rename(site / "clever" / folder)
    expected = set(files(site / "clever"))
    (site / "clever/__pycache__").mkdir()
    (site / "clever/__pycache__/plan.pyc").touch()
    place = Path(python(TAKE, str(tmp_path / "runs"), path=site, cwd=tmp_path))
    assert set(files(place)) == {f"clever/{name}" for name in expected}
    shutil.rmtree(site)
    loaded, experiments, *state, _ = json.loads(python(IMPORT_ALL, str(place), path=place, cwd=tmp_path))
    assert loaded == [str(place / "clever/__init__.py"), str(place / "clever/reports/__init__.py")]
    assert "table3" in experiments
    assert state == [None, None]
