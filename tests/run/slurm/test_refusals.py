"""Before anything is queued: what the cluster would refuse, and settings as a job needs them."""

from pathlib import Path

from clever.run.slurm import submit
from clever.run.slurm.scheduler import Slurm
from clever.settings import DataSettings, Settings
from tests.run.slurm.plans import families


def test_a_cluster_that_would_take_everything_is_asked_once_a_kind_of_job(site):
    batches = site.arrays(families(5), canary_minutes=2)
    assert len(batches) > 2
    assert submit.refusals(batches, site.settings, Slurm()) == {}
    assert site.count("sbatch") == 2
    assert site.fake.jobs() == {}


def test_what_the_cluster_would_refuse_is_told_by_kind(site):
    wrong = site.settings.model_copy(update={"cluster": site.settings.cluster.model_copy(update={"gpu_type": "h100"})})
    found = submit.refusals(site.arrays(families(3)), wrong, Slurm())
    assert [key.partition(" (")[0] for key in found] == ["pretrain", "probe"]
    assert all("Requested node configuration is not available" in reason for reason in found.values())


def test_a_partition_that_does_not_exist_is_told(site):
    wrong = site.settings.model_copy(update={"cluster": site.settings.cluster.model_copy(update={"partition": "none"})})
    found = submit.refusals(site.arrays(families(1)), wrong, Slurm())
    assert all("invalid partition specified: none" in reason for reason in found.values())
    assert len(found) == 2


def test_more_time_than_the_partition_allows_is_told_though_sbatch_would_take_it(new_site):
    site = new_site(max_time="10:00:00")
    found = submit.refusals(site.arrays(families(1)), site.settings, Slurm())
    assert list(found.values()) == ["1440 minutes are more than the partition's limit of 600"]


def test_paths_in_the_settings_of_a_job_are_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = Settings(store=Path("runs"), data=DataSettings(roots=(Path("sets"),), sets={"mine": Path("m")}))
    made = submit.absolute(given)
    assert (made.store, made.data.roots, made.data.sets) == (
        tmp_path / "runs",
        (tmp_path / "sets",),
        {"mine": tmp_path / "m"},
    )
    assert made.tracking_uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
