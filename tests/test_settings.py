"""The user's settings: where they come from, what wins, and every mistake at once."""

from pathlib import Path

import pytest

from clever.errors import RequestError
from clever.settings import Settings, load


@pytest.fixture
def config(tmp_path):
    """Writes a clever.toml in a folder of its own and gives the environment that names it."""

    def write(text: str | bytes, **environment: str) -> dict[str, str]:
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        path = folder / "clever.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return {"CLEVER_CONFIG": str(path), **environment}

    return write


def refusal(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(RequestError) as refused:
        load(environment)
    return refused.value.messages


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load({"XDG_CONFIG_HOME": str(tmp_path)})
    assert settings == Settings()
    assert (settings.store, settings.profile, settings.source) == (Path("runs"), "smoke", "defaults")


def test_the_file_is_looked_for_here_then_in_the_configuration_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "clever").mkdir(parents=True)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    (tmp_path / "home" / "clever" / "clever.toml").write_text('profile = "tiny"')
    assert load(environment).profile == "tiny"
    (tmp_path / "clever.toml").write_text('profile = "paper"')
    assert load(environment).profile == "paper"
    (tmp_path / "other.toml").write_text('profile = "cifar10"')
    assert load({**environment, "CLEVER_CONFIG": str(tmp_path / "other.toml")}).profile == "cifar10"


def test_a_configuration_that_does_not_exist_is_refused(tmp_path):
    path = str(tmp_path / "none.toml")
    assert refusal({"CLEVER_CONFIG": path}) == (f"CLEVER_CONFIG names {path}, which is no file",)


def test_folders_in_the_file_are_relative_to_the_file(config, tmp_path):
    settings = load(config('store = "out"\n[data]\nroots = ["sets", "/big"]\nmine = "../mine"\n'))
    here = tmp_path / "config"
    assert settings.store == here / "out"
    assert settings.data.roots == (here / "sets", Path("/big"))
    assert settings.data.sets == {"mine": here / "../mine"}
    assert "mine" in settings.locations.names()


def test_a_tilde_is_the_home_folder(config, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    settings = load(config('store = "~/runs"\n[data]\nroots = ["~/data", "~nobody-of-this-name/data"]\n'))
    assert settings.store == Path("/somewhere/runs")
    assert settings.data.roots[0] == Path("/somewhere/data")


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(config):
    environment = config(
        'store = "a"\nprofile = "tiny"\n[mlflow]\ntracking_uri = "http://a"\nexperiment = "mine"\n',
        CLEVER_STORE="/b", CLEVER_PROFILE="paper", MLFLOW_TRACKING_URI="http://b",
    )  # fmt: skip
    settings = load(environment)
    assert (settings.store, settings.profile, settings.tracking_uri) == (Path("/b"), "paper", "http://b")
    assert settings.mlflow.experiment == "mine"
    assert load(environment, store=Path("/c")).store == Path("/c")


def test_empty_variables_count_as_not_set(config):
    settings = load(config('store = "/a"', CLEVER_STORE="", CLEVER_PROFILE="", CLEVER_DATA="", MLFLOW_TRACKING_URI=""))
    assert (settings.store, settings.profile, settings.data.roots) == (Path("/a"), "smoke", ())


def test_data_folders_of_the_environment_come_after_those_of_the_file(config):
    settings = load(config('[data]\nroots = ["/a"]\n', CLEVER_DATA="/b:/c"))
    assert settings.data.roots == (Path("/a"), Path("/b"), Path("/c"))


def test_tracking_is_by_default_a_file_in_the_store(config):
    assert load(config('store = "/a/b"')).tracking_uri == "sqlite:////a/b/mlflow.db"


def test_nothing_is_watched_unless_it_is_asked_for(config):
    off = load(config("")).monitor
    assert (off.every_epochs, off.neighbours, off.images) == (0, 20, 10_000)
    assert load(config("[monitor]\nevery_epochs = 5\nneighbours = 10\n")).monitor.every_epochs == 5
    found = "\n".join(refusal(config("[monitor]\nevery = 5\nevery_epochs = -1\nneighbours = 0\nimages = 1\n")))
    assert "unknown setting `monitor.every`; did you mean `every_epochs`?" in found
    assert all(f": monitor.{name}: " in found for name in ("every_epochs", "neighbours", "images"))


def test_every_mistake_of_a_file_is_reported_at_once(config):
    environment = config(
        'stroe = "x"\nprofile = 3\n[data]\nworkers = -1\nroots = "/data"\nmine = 5\n'
        '[mlflow]\nexperimnt = "x"\n[devices]\nkind = "gpu"\nmax_devices = 0\ncheckpoint_minutes = 0\n'
    )
    messages = refusal(environment)
    assert all(message.startswith(f"{environment['CLEVER_CONFIG']}: ") for message in messages)
    found = "\n".join(messages)
    assert "unknown setting `stroe`; did you mean `store`?" in found
    assert "unknown setting `mlflow.experimnt`; did you mean `experiment`?" in found
    assert "data.roots: expected is a list, as [\"...\"] (given: '/data')" in found
    assert "data.mine: expected is the path of a folder, as \"/data\" (given: 5)" in found
    for place in ("profile", "data.workers", "data.mine", "devices.kind", "devices.max_devices"):
        assert f": {place}: " in found
    assert len(messages) == 9


@pytest.mark.parametrize(
    "text",
    ["data = 3", "mlflow = 3", "[data]\nroots = 3", "[data]\nroots = [3]", "[data.sets]\nmine = '/x'", "store = 3"],
)
def test_a_wrong_kind_of_value_is_refused_and_no_reason_to_fail(config, text):
    assert refusal(config(text, MLFLOW_TRACKING_URI="http://b", CLEVER_DATA="/x"))


@pytest.mark.parametrize("text", ["store =", b"store = '\xff'", "a = 1\na = 2\n", "a = " + "[" * 5000])
def test_a_file_that_is_no_toml_is_named(config, text):
    (message,) = refusal(config(text))
    assert "clever.toml: cannot be read: " in message
