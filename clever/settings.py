"""The user's settings: where data and results lie and what this machine may use (clever.toml and the environment).

Nothing here may change a number: settings are no part of a task's identity.
"""

import os
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from clever.catalog import Locations
from clever.cluster import ClusterSettings
from clever.errors import RequestError
from clever.names import nearest
from clever.recipes import Frozen

EXPECTED = {  # in the words of the file
    "path_type": 'expected is the path of a folder, as "/data"',
    "tuple_type": 'expected is a list, as ["..."]',
}


class DataSettings(Frozen):
    """``[data]``: folders above data sets, and the folder of any one set by its name."""

    roots: tuple[Path, ...] = ()
    sets: dict[str, Path] = {}
    workers: int = Field(2, ge=0)  # loader processes per device, for the reference pipeline


class MlflowSettings(Frozen):
    """``[mlflow]``: by default an SQLite file in the store."""

    enabled: bool = True
    tracking_uri: str | None = None
    experiment: str = "clever"


class DeviceSettings(Frozen):
    """``[devices]``: what one machine gives to ``clever run``."""

    kind: str = Field("auto", pattern="^(auto|cpu|cuda)$")
    max_devices: int | None = Field(None, ge=1)
    max_batch_per_device: int | None = Field(None, ge=1)  # larger shares are accumulated
    checkpoint_minutes: float = Field(5.0, gt=0)


class MonitorSettings(Frozen):
    """``[monitor]``: k-NN and retrieval while a pre-training goes on; it changes no number of the training."""

    every_epochs: int = Field(0, ge=0)  # 0: never; else also after the last epoch
    neighbours: int = Field(20, ge=1)
    images: int = Field(10_000, ge=2)  # at most so many of each split, the same number of every class


class Settings(Frozen):
    store: Path = Path("runs")
    profile: str = "smoke"
    executor: Literal["auto", "local", "slurm"] = "auto"
    data: DataSettings = DataSettings()
    mlflow: MlflowSettings = MlflowSettings()
    devices: DeviceSettings = DeviceSettings()
    monitor: MonitorSettings = MonitorSettings()
    cluster: ClusterSettings = ClusterSettings()
    source: str = "defaults"  # the file that was read

    @cached_property
    def locations(self) -> Locations:
        return Locations(roots=self.data.roots, named=dict(self.data.sets))

    @property
    def tracking_uri(self) -> str:
        """Where MLflow lies: the given address, or an SQLite file in the store."""
        return self.mlflow.tracking_uri or f"sqlite:///{self.store.absolute() / 'mlflow.db'}"


def config_path(environment: Mapping[str, str]) -> Path | None:
    """The file that is read: $CLEVER_CONFIG, ./clever.toml, or the one in the user's configuration folder."""
    if given := environment.get("CLEVER_CONFIG"):
        if not Path(given).is_file():
            raise RequestError(f"CLEVER_CONFIG names {given}, which is no file")
        return Path(given)
    base = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return next((path for path in (Path("clever.toml"), base / "clever" / "clever.toml") if path.is_file()), None)


def load(environment: Mapping[str, str] = os.environ, *, store: Path | None = None) -> Settings:
    """Read the settings file, then the environment; ``store`` (from the command line) wins over both.

    Raises RequestError with every mistake of the file at once.
    """
    path = config_path(environment)
    values = _read(path) if path else {}
    base = path.parent if path else Path()
    if "store" in values:
        values["store"] = _below(base, values["store"])
    data = values.setdefault("data", {})
    if isinstance(data, dict):
        # `[data] imagenet100 = "/path"` names one set, beside the fields proper
        proper = {key: data[key] for key in ("roots", "workers") if key in data}
        roots = proper.get("roots", [])
        if isinstance(roots, list):
            extra = [Path(root) for root in environment.get("CLEVER_DATA", "").split(os.pathsep) if root]
            proper["roots"] = [*(_below(base, root) for root in roots), *extra]
        sets = {key: _below(base, value) for key, value in data.items() if key not in proper}
        values["data"] = {**proper, "sets": sets}
    for variable, key in (("CLEVER_STORE", "store"), ("CLEVER_PROFILE", "profile")):
        if environment.get(variable):
            values[key] = environment[variable]
    mlflow = values.get("mlflow", {})
    if environment.get("MLFLOW_TRACKING_URI") and isinstance(mlflow, dict):
        values["mlflow"] = {**mlflow, "tracking_uri": environment["MLFLOW_TRACKING_URI"]}
    if store is not None:
        values["store"] = store
    values["source"] = str(path) if path else "defaults"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise RequestError(*(_describe(values["source"], problem) for problem in error.errors())) from None


def _below(base: Path, folder: Any) -> Any:
    """A folder that is named in the file, relative to where the file lies; what is no path is left to the model."""
    return base / os.path.expanduser(folder) if isinstance(folder, str) else folder


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None
    except RecursionError:
        raise RequestError(f"{path}: cannot be read: it is nested too deeply") from None
    values.pop("source", None)
    return values


def _describe(source: str, problem: Any) -> str:
    place = problem["loc"]
    if place[:2] == ("data", "sets"):  # the file has them in `[data]` itself
        place = ("data", *place[2:])
    where = ".".join(str(part) for part in place)
    if problem["type"] == "extra_forbidden":
        model: Any = Settings
        for part in problem["loc"][:-1]:
            model = model.model_fields[part].annotation
        near = nearest(str(problem["loc"][-1]), [name for name in model.model_fields if name != "source"])
        return f"{source}: unknown setting `{where}`" + (f"; did you mean `{near}`?" if near else "")
    words = EXPECTED.get(problem["type"], problem["msg"])
    return f"{source}: {where}: {words} (given: {problem['input']!r})"
