"""`clever doctor`: findings and cures."""

from pathlib import Path

import pytest

from clever.run import devices, examine
from clever.settings import DataSettings, DeviceSettings, MlflowSettings, Settings


def by_what(settings: Settings) -> dict[str, examine.Finding]:
    parts = [examine._devices(settings), examine._store(settings), examine._tracking(settings), examine._data(settings)]
    return {finding.what: finding for part in parts for finding in part}


def test_a_machine_without_gpu_or_data_is_fit_for_the_small_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices._count_gpus.cache_clear()
    found = by_what(Settings(store=tmp_path / "runs"))
    devices._count_gpus.cache_clear()
    assert found["devices"].verdict == "note" and "smoke" in found["devices"].cure
    assert found["store"].verdict in ("ok", "note") and found["MLflow"].verdict == "ok"
    assert found["data: digits"].verdict == "ok"
    assert found["data: imagenet100"].verdict == "note" and "ImageNet-1k" in found["data: imagenet100"].cure


def test_what_is_broken_is_bad_and_has_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices._count_gpus.cache_clear()
    settings = Settings(
        store=tmp_path,
        data=DataSettings(sets={"birds": tmp_path / "nowhere"}),
        mlflow=MlflowSettings(tracking_uri="http://127.0.0.1:9"),
        devices=DeviceSettings(kind="cuda"),
    )
    found = by_what(settings)
    devices._count_gpus.cache_clear()
    for what in ("devices", "MLflow", "data: birds"):
        assert found[what].verdict == "bad" and found[what].cure, what
    assert "kind" in found["devices"].cure and "nowhere" in found["data: birds"].cure
