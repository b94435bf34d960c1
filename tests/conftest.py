"""What every test shares: one thread for torch, no contact with the user's own settings and runs, and real data."""

import os
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before torch is imported, and for the processes that tests start


@pytest.fixture(scope="session")
def empty_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tmp_path_factory.mktemp("config") / "clever.toml"
    config.touch()
    return config


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_world(empty_config: Path, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, store and tracking of the person who runs the tests are out of reach; the data folder alone stays."""
    for variable in list(os.environ):
        ours = variable.startswith("CLEVER_") and variable != "CLEVER_DATA"
        if ours or variable.startswith(("MLFLOW_", "GIT_")) or variable in ("FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(variable)
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setenv("CLEVER_CONFIG", str(empty_config))
    monkeypatch.setenv("CLEVER_CACHE", str(empty_cache))
    monkeypatch.setenv("CLEVER_STORE", str(tmp_path / "runs"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that CLEVER_DATA names; without it the test is skipped."""
    folder = os.environ.get("CLEVER_DATA")
    if not folder:
        pytest.skip("CLEVER_DATA is not set to a folder of data sets")
    if not Path(folder).is_dir():
        pytest.fail(f"CLEVER_DATA names {folder}, which is no folder")
    return Path(folder)
