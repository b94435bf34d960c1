"""The checks behind `clever doctor`. Each returns what was found and, where needed, the cure."""

import importlib
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from clever.catalog import CATALOG, DataError
from clever.cluster import MINUTES, resources
from clever.errors import RequestError
from clever.names import TaskKind
from clever.run.devices import available
from clever.run.mirror import for_jobs
from clever.run.slurm.batches import Batch
from clever.run.slurm.scheduler import Slurm, SlurmError, absence
from clever.run.slurm.submit import refusals
from clever.settings import Settings

LOW_DISK_GIB = 5
SERVER_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """``verdict`` is ok, note (works, but less than it could) or bad."""

    what: str
    verdict: str
    found: str
    cure: str = ""


def examine(settings: Settings) -> list[Finding]:
    checks: list[Callable[[Settings], list[Finding]]] = [_python, _packages, _devices, _slurm, _store, _tracking, _data]
    return [finding for check in checks for finding in check(settings)]


def _python(settings: Settings) -> list[Finding]:
    version = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    return [
        Finding("Python", "ok" if good else "bad", version, "" if good else "install Python 3.11 or newer"),
        Finding("settings", "ok", settings.source),
    ]


def _packages(settings: Settings) -> list[Finding]:
    findings = []
    for name in ("torch", "torchvision", "timm", "pandas", "pyarrow", "rich"):
        try:
            module = importlib.import_module(name)
            findings.append(Finding(name, "ok", str(getattr(module, "__version__", "installed"))))
        except Exception as error:  # a broken binary raises anything at all
            cure = "pip install -c constraints.txt " + name
            findings.append(Finding(name, "bad", f"{type(error).__name__}: {error}", cure))
    return findings


def _devices(settings: Settings) -> list[Finding]:
    try:
        devices = available(settings.devices)
    except RequestError as error:
        return [Finding("devices", "bad", str(error), 'set `[devices] kind = "auto"` or mend the driver')]
    found = f"{len(devices.names)} x {devices.kind}"
    if devices.kind == "cpu":
        return [Finding("devices", "note", found, "the paper's scale needs GPUs; smoke and tiny do not")]
    import torch

    if not torch.cuda.is_available():
        cure = "nvidia-smi shows a GPU that torch cannot use: install a torch build for this driver"
        return [Finding("devices", "bad", found, cure)]
    return [Finding("devices", "ok", f"{found} ({torch.cuda.get_device_name(0)})")]


def _slurm(settings: Settings) -> list[Finding]:
    """Is there a cluster, and would it take each kind of job? Nothing is queued."""
    try:
        if (why := absence()) is not None:
            return [Finding("Slurm", "note", f"no cluster here: {why}", "needed only to submit jobs")]
        slurm = Slurm()
        limits = slurm.limits()
        found = f"cluster {limits.cluster or '(no name)'}, arrays of up to {limits.max_array_size} jobs"
        findings = [Finding("Slurm", "ok", found)]
        for kind in MINUTES:
            asked = resources(settings.cluster, kind, all_devices=kind is TaskKind.PRETRAIN)
            batch = Batch(f"doctor-{kind}", kind, asked, {0: ()})
            refused = refusals([batch], settings, slurm)
            words = next(iter(refused.values()), "would be taken")
            cure = "see [cluster] in clever.toml" if refused else ""
            findings.append(Finding(f"Slurm: {kind}", "bad" if refused else "ok", f"{asked}: {words}", cure))
    except (RequestError, SlurmError) as error:
        return [Finding("Slurm", "bad", str(error), "ask `scontrol ping`; --executor local runs on this machine")]
    if settings.mlflow.enabled and not for_jobs(settings.tracking_uri):
        cure = "`clever tracking serve`, and its address as tracking_uri"
        findings.append(Finding("Slurm: MLflow", "note", "jobs do not send to an SQLite file; `clever run` does", cure))
    return findings


def _store(settings: Settings) -> list[Finding]:
    folder = settings.store.absolute()
    present = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(present, os.W_OK):
        return [Finding("store", "bad", f"{folder} cannot be written", "give another --store")]
    try:
        with tempfile.NamedTemporaryFile(dir=present):
            pass
    except OSError as error:
        return [Finding("store", "bad", f"{folder}: {error}", "free space or give another --store")]
    free = shutil.disk_usage(present).free / 2**30
    cure = "" if free > LOW_DISK_GIB else "resume checkpoints of large backbones take a gigabyte each"
    return [Finding("store", "ok" if not cure else "note", f"{folder} ({free:.0f} GiB free)", cure)]


def _tracking(settings: Settings) -> list[Finding]:
    if not settings.mlflow.enabled:
        return [Finding("MLflow", "note", "switched off in the settings")]
    try:
        version = metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        return [Finding("MLflow", "bad", "not installed", "pip install mlflow, or `[mlflow] enabled = false`")]
    uri = settings.tracking_uri
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_SECONDS).close()
        except (OSError, ValueError) as error:
            cure = "start the server; training goes on without it and its points are sent later"
            return [Finding("MLflow", "bad", f"{uri}: {error}", cure)]
    return [Finding("MLflow", "ok", f"{version}, {uri}")]


def _data(settings: Settings) -> list[Finding]:
    findings = []
    for name in settings.locations.names():
        try:
            path = settings.locations.find(name)
            findings.append(Finding(f"data: {name}", "ok", str(path or "built in")))
        except DataError as error:
            facts = CATALOG.get(name)
            mine = name in settings.data.sets
            cure = facts.obtain if facts and not mine else str(error)
            findings.append(Finding(f"data: {name}", "bad" if mine else "note", "not here", cure))
    return findings
