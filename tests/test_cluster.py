"""The ``[cluster]`` section: every wrong setting is named with its place, and what each kind of task asks Slurm for."""

import pytest

from clever import settings
from clever.cluster import MINUTES, RESERVED, ClusterSettings, describe, minutes, resources
from clever.errors import RequestError
from clever.names import TaskKind


def load(folder, text: str) -> ClusterSettings:
    path = folder / "clever.toml"
    path.write_text(text)
    return settings.load({"CLEVER_CONFIG": str(path)}).cluster


def refusals(folder, text: str) -> list[str]:
    with pytest.raises(RequestError) as refused:
        load(folder, text)
    return [message.replace(f"{folder}/clever.toml", "FILE") for message in refused.value.messages]


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (90, 90),
        ("90", 90),
        (" 90 ", 90),
        ("90:00", 90),
        ("90:01", 91),  # a limit is never shorter than what was asked for
        ("0:30", 1),
        ("12:00:00", 720),
        ("1:30:00", 90),
        ("00:00:01", 1),
        ("2-0", 2880),
        ("2-12", 3600),
        ("2-12:30", 3630),
        ("2-12:30:01", 3631),
        ("7-00:00:00", 10080),
    ],
)
def test_time_limits_are_read_in_each_of_slurms_spellings(text, expected):
    """minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds."""
    assert minutes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "abc", "-5", "1.5", "2-", "-12", "1:2:3:4", "1-2:3:4:5", "1h", "12:", ":30", "INFINITE", "1 2", "1\n2"]
)
def test_what_is_no_time_limit_is_refused(text):
    with pytest.raises(ValueError, match="is no time limit: give minutes, HH:MM:SS or D-HH:MM:SS"):
        minutes(text)


@pytest.mark.parametrize("text", [0, "0", "0:00", "00:00:00", "0-0", "0-00:00:00"])
def test_a_time_limit_of_nothing_is_refused(text):
    with pytest.raises(ValueError, match="0 minutes leaves no time"):
        minutes(text)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('[cluster.pretrain]\ntime = "0"', "cluster.pretrain.time", "0 minutes leaves no time"),
        ('[cluster.probe]\ntime = "abc"', "cluster.probe.time", "`abc` is no time limit"),
        ("[cluster.perturbed]\nnodes = 0", "cluster.perturbed.nodes", "greater than or equal to 1"),
        ("[cluster.probe]\ngpus_per_node = -1", "cluster.probe.gpus_per_node", "greater than or equal to 0"),
        ('[cluster]\nmemory_per_gpu = "60GB!"', "cluster.memory_per_gpu", "as in 60G"),
        ('[cluster]\nmemory_per_gpu = "-60G"', "cluster.memory_per_gpu", "as in 60G"),
        ('[cluster]\npartition = ""', "cluster.partition", "one line of plain text"),
        ('[cluster]\npartition = "gpu\\n#SBATCH --uid=0"', "cluster.partition", "one line of plain text"),
        ('[cluster]\naccount = "a\\u0000b"', "cluster.account", "one line of plain text"),
        ('[cluster]\nqos = "a\\rb"', "cluster.qos", "one line of plain text"),
        ('[cluster]\npython = "python\\nrm -r x"', "cluster.python", "one line of plain text"),
        ('[cluster]\npython = "it\'s python"', "cluster.python", "quotation"),
        ('[cluster]\nsetup = ["module load cuda", "a\\nb"]', "cluster.setup", "one line of plain text"),
        ('[cluster]\nsetup = "module load cuda"', "cluster.setup", "expected is a list"),
        ("[cluster]\nmax_gpus = 0", "cluster.max_gpus", "greater than or equal to 1"),
        ("[cluster]\ngpus_per_node = -4", "cluster.gpus_per_node", "greater than or equal to 0"),
        ("[cluster]\ncpus_per_gpu = 0", "cluster.cpus_per_gpu", "greater than or equal to 1"),
        ("[cluster]\nsignal_seconds = 1", "cluster.signal_seconds", "greater than or equal to 10"),
        ("[cluster]\ncanary_minutes = -1", "cluster.canary_minutes", "greater than or equal to 0"),
        ("[cluster]\nask_above_gpu_hours = -1", "cluster.ask_above_gpu_hours", "greater than or equal to 0"),
        ("[cluster]\nchain_gpu_hours = -1", "cluster.chain_gpu_hours", "greater than or equal to 0"),
        ('[cluster.sbatch]\narray = "0-9"', "cluster", "`array` is set by clever itself"),
        ('[cluster.sbatch]\nkill-on-invalid-dep = "no"', "cluster", "`kill-on-invalid-dep` is set by clever itself"),
        ('[cluster.sbatch]\n"--mail-type" = "END"', "cluster", "write it without dashes in front"),
        ('[cluster.sbatch]\np = "gpu"', "cluster", "`p` is no long option"),
        ('[cluster.sbatch]\ncomment = "a\\n#SBATCH --uid=0"', "cluster", "comment must be one line of plain text"),
        ('[cluster.sbatch]\n"comment=x --uid" = "0"', "cluster", "is no long option"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path, text, place, words):
    (message,) = refusals(tmp_path, text)
    assert message.startswith(f"FILE: {place}: ")
    assert words in message


@pytest.mark.parametrize(
    ("text", "where", "near"),
    [
        ('[cluster]\npartitoin = "gpu"', "cluster.partitoin", "partition"),
        ("[cluster]\nmax_gpu = 8", "cluster.max_gpu", "max_gpus"),
        ('[cluster.pretrain]\ntimes = "8:00:00"', "cluster.pretrain.times", "time"),
        ("[cluster.probe]\nnode = 2", "cluster.probe.node", "nodes"),
        ("[clusters]\nmax_gpus = 8", "clusters", "cluster"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_one(tmp_path, text, where, near):
    assert refusals(tmp_path, text) == [f"FILE: unknown setting `{where}`; did you mean `{near}`?"]


def test_every_mistake_is_reported_at_once(tmp_path):
    text = '[cluster]\nmemory_per_gpu = "much"\nmax_gpus = 0\nqoss = "x"\n[cluster.probe]\ntime = "soon"'
    assert len(refusals(tmp_path, text)) == 4


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_our_jobs_rely_on_cannot_be_given_as_an_extra_option(name):
    with pytest.raises(ValueError, match=f"`{name}` is set by clever itself"):
        ClusterSettings(sbatch={name: "1"})


def test_a_whole_section_is_read(tmp_path):
    read = load(
        tmp_path,
        '[cluster]\npartition = "gpu,big"\naccount = "lab"\nqos = "normal"\nconstraint = "a100&nvlink"\n'
        'gpu_type = "a100"\nmemory_per_gpu = "60G"\nsetup = ["module load cuda\\t12", "source env/bin/activate"]\n'
        'python = "apptainer exec --nv image.sif python"\n'
        '[cluster.sbatch]\nmail-type = "END"\nexclusive = true\nnice = 100\n[cluster.pretrain]\ntime = "2-00:00:00"\n',
    )
    assert (read.partition, read.constraint, read.setup[1]) == ("gpu,big", "a100&nvlink", "source env/bin/activate")
    assert read.sbatch == {"mail-type": "END", "exclusive": True, "nice": 100}
    assert read.pretrain.time == "2-00:00:00"


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_a_task_on_all_devices_gets_a_node_and_any_other_one_gpu():
    cluster = ClusterSettings(memory_per_gpu="60G")
    whole = resources(cluster, TaskKind.PRETRAIN, all_devices=True)
    one = resources(cluster, TaskKind.PROBE, all_devices=False)
    assert (whole.nodes, whole.gpus_per_node, whole.processes, whole.gpus, whole.memory) == (1, 4, 4, 4, "240G")
    assert (one.nodes, one.gpus_per_node, one.processes, one.gpus, one.memory) == (1, 1, 1, 1, "60G")
    assert (whole.minutes, one.minutes) == (MINUTES[TaskKind.PRETRAIN], MINUTES[TaskKind.PROBE])


def test_a_kind_of_task_may_ask_for_something_else():
    own = {"nodes": 2, "gpus_per_node": 8, "time": "1-0"}
    asked = resources(ClusterSettings(pretrain=own), TaskKind.PRETRAIN, all_devices=True)
    assert (asked.nodes, asked.processes_per_node, asked.processes, asked.gpus, asked.minutes) == (2, 8, 16, 16, 1440)
    other = resources(ClusterSettings(pretrain=own), TaskKind.PROBE, all_devices=False)
    assert (other.nodes, other.gpus) == (1, 1)


def test_without_gpus_there_is_one_process_a_node():
    asked = resources(ClusterSettings(gpus_per_node=0, memory_per_gpu="4000"), TaskKind.PRETRAIN, all_devices=True)
    assert (asked.gpus, asked.processes_per_node, asked.processes, asked.memory) == (0, 1, 1, "4000M")
    assert "GPU" not in str(asked)


def test_resources_are_told_in_words_and_to_programs():
    own = {"nodes": 2, "gpus_per_node": 4, "time": 61}
    asked = resources(ClusterSettings(pretrain=own, memory_per_gpu="2T"), TaskKind.PRETRAIN, all_devices=True)
    assert str(asked) == "2 nodes x 4 GPUs, 8 CPUs a process, 1:01:00"
    assert describe(asked) == {"nodes": 2, "gpus_per_node": 4, "minutes": 61, "memory": "8T"}
