"""Table 3 on a real Slurm: submitted by two people at once, done by arrays with dependencies, complete."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from clever.failures import journal
from clever.files import read_json
from clever.names import TaskKind
from clever.spec import Task
from tests.slurm.clever_runs import Answer, User, ended, starts
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slow
MAX_GPUS = 3


@dataclass
class Table:
    """A finished Table 3, and what was seen while it was made."""

    user: User
    tasks: list[Task]
    answers: list[Answer]  # of the two who submitted it
    most_gpus: int  # in use at one time


def gpus_in_use(cluster: Cluster) -> int:
    """Of all jobs of the cluster: the nodes times the GPUs of a node."""
    lines = cluster.run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%D %b").splitlines()
    return sum(int(nodes) * int(gres.rpartition(":")[2]) for nodes, gres in map(str.split, lines))


@pytest.fixture(scope="module")
def table(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with User(tmp_path_factory.mktemp("table"), cluster) as user:
        user.settings(max_gpus=MAX_GPUS)
        answers = [ended(process) for process in [user.start("run", "table3") for _ in range(2)]]
        found = Table(user, user.tasks("table3"), answers, 0)

        def look() -> bool:
            found.most_gpus = max(found.most_gpus, gpus_in_use(cluster))
            return not any(job.alive for job in user.jobs().values())

        user.wait(look, "Table 3 has left the queue")
        yield found


def test_two_submissions_at_once_put_each_task_into_exactly_one_job(table):
    assert [answer.code for answer in table.answers] == [0, 0], table.answers
    submitted = [read_json(path)["elements"].values() for path in table.user.store.glob("jobs/*/batch.json")]
    places = Counter(folder for elements in submitted for element in elements for folder in element)
    assert places == Counter(task.folder for task in table.tasks)
    assert {len(starts(table.user.store / task.folder)) for task in table.tasks} == {1}


def test_all_jobs_of_the_table_are_arrays_that_completed(table):
    jobs = table.user.jobs().values()
    assert {job.state for job in jobs} == {"COMPLETED"}
    # six pre-trainings, one job for the evaluations of each, and one for the untrained backbone
    assert sorted(Counter(job.id.partition("_")[0] for job in jobs).values()) == [1, 6, 6]


def test_an_evaluation_begins_after_its_parent_has_ended(table):
    events = {task.id: journal(table.user.store / task.folder) for task in table.tasks}
    for task in table.tasks:
        for need in task.needs:
            assert events[task.id][0]["time"] > events[need][-1]["time"], task.folder
    assert sum(task.kind is not TaskKind.PRETRAIN for task in table.tasks) == 13


def test_all_gpus_that_are_allowed_are_in_use_and_never_more(table):
    assert table.most_gpus == MAX_GPUS


def test_the_same_command_again_says_at_once_that_all_is_done_and_queues_nothing(table):
    before = table.user.records()
    began = time.monotonic()
    answer = table.user.clever("run", "table3")
    assert time.monotonic() - began < 30
    assert table.user.records() == before
    assert "CLeVER-IR" in answer.out


def test_the_report_is_complete(table):
    answer = table.user.clever("report", "table3", "--strict", "--json")
    cells = [cell for row in answer.json["tables"][0]["rows"] for cell in row["cells"].values()]
    assert len(cells) == 9 * 5 and {cell["state"] for cell in cells} == {"done"}
    assert all(cell["value"] is not None for cell in cells)
