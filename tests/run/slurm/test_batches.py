"""Arrays: every task in exactly one job, each job behind its own parent, never more GPUs than allowed."""

import itertools
import random

import pytest

from clever.catalog import Locations
from clever.cluster import ClusterSettings
from clever.errors import RequestError
from clever.grid import studies
from clever.names import Action, TaskKind
from clever.plan import Plan, make
from clever.run.slurm import batches as batching
from clever.run.slurm.batches import After, Batch, Place
from clever.store import Store
from tests.run.slurm.plans import anything, families, family, plan, planned, pretrain, probe
from tests.study import STUDY, expand

WANTED = {TaskKind.PRETRAIN: "all"}
PLAIN = ClusterSettings(canary_minutes=0)


def arrays(made: Plan, settings: ClusterSettings = PLAIN, **options: object) -> list[Batch]:
    numbers = itertools.count()
    return batching.make(made, settings, WANTED, token=lambda: f"{next(numbers):08}", **options)


def places(batches: list[Batch]) -> dict[str, Place]:
    """Task id -> where it is done; fails if one is done twice."""
    found: dict[str, Place] = {}
    for batch in batches:
        for index, folders in batch.elements.items():
            for folder in folders:
                key = folder.rpartition("-")[2]
                assert key not in found, f"{folder} is in two jobs"
                found[key] = Place(batch.name, index)
    return found


def sizes(batches: list[Batch]) -> list[tuple[str, int, int]]:
    return [(batch.kind.value, len(batch.elements), batch.tasks) for batch in batches]


# --- what holds for every plan ---------------------------------------------------------------------------------------


def check_every_task_is_done_once(made: Plan, batches: list[Batch]) -> None:
    late = {one.task.id for one in batching.postponed(made)}
    todo = {one.task.id for one in made.tasks if one.action in (Action.SUBMIT, Action.RETRY)} - late
    assert set(places(batches)) == todo
    assert all(folders for batch in batches for folders in batch.elements.values()), "a job without work"


def check_indices(batches: list[Batch], max_array_size: int) -> None:
    names = [batch.name for batch in batches]
    assert len(set(names)) == len(names)
    for batch in batches:
        assert batch.elements
        assert all(0 <= index < max_array_size for index in batch.elements)


def check_each_job_waits_for_its_own_parents(made: Plan, batches: list[Batch]) -> None:
    here = places(batches)
    known = {
        one.task.id: Place.of(one.status.holder.job)
        for one in made.tasks
        if one.action is Action.ATTACH and one.status.holder.job is not None
    }
    by_folder = {one.task.folder: one.task for one in made.tasks}
    for batch in batches:
        waits_for = {after.batch for after in batch.after if after.rule == "aftercorr"}
        for index, folders in batch.elements.items():
            own = [by_folder[folder].id for folder in folders]
            needed = set()
            for position, folder in enumerate(folders):
                for need in by_folder[folder].needs:
                    if need in own:
                        assert own.index(need) < position, "a child stands before its parent"
                    elif need in here or need in known:
                        needed.add(here.get(need) or known[need])
            assert needed == {Place(name, index) for name in waits_for}, "an element waits for another one's parent"


def check_order(batches: list[Batch], in_flight: list[tuple[str, int]], made: Plan) -> None:
    """What a batch waits for is submitted before it, or was before this submission."""
    seen = {name for name, _ in in_flight}
    seen |= {Place.of(one.status.holder.job).batch for one in made.tasks if one.status.holder and one.status.holder.job}
    for batch in batches:
        assert {after.batch for after in batch.after} <= seen
        seen.add(batch.name)


def most_gpus(batches: list[Batch], in_flight: list[tuple[str, int]]) -> int:
    """The most GPUs that arrays use together of which none has to wait for another one's end."""
    gpus = dict(in_flight) | {batch.name: batch.gpus for batch in batches}
    before: dict[str, set[str]] = {name: set() for name in gpus}
    for batch in batches:
        for after in batch.after:
            if after.rule == "afterany" and after.batch in before:
                before[batch.name] |= {after.batch} | before[after.batch]
    names = [name for name in gpus if gpus[name]]

    def largest(chosen: list[str], rest: list[str]) -> int:
        if not rest:
            return sum(gpus[name] for name in chosen)
        name, *others = rest
        free = [other for other in others if other not in before[name] and name not in before[other]]
        with_it = largest([*chosen, name], free)
        return with_it if len(free) == len(others) else max(with_it, largest(chosen, others))

    return largest([], names)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_plan_is(seed):
    chance = random.Random(seed)
    made = anything(chance)
    size = chance.choice([13, 14, 1001])  # an old array of the plan has indices up to 11
    settings = ClusterSettings(
        canary_minutes=chance.choice([0, 2]),
        chain_gpu_hours=chance.choice([0.0, 0.5, 100.0]),
        max_gpus=chance.choice([None, 4, 5, 16, 64]),
    )
    in_flight = [(f"old-{number}", chance.choice([0, 1, 4])) for number in range(chance.randint(0, 3))]
    batches = arrays(made, settings, max_array_size=size, in_flight=in_flight)
    check_every_task_is_done_once(made, batches)
    check_indices(batches, size)
    check_each_job_waits_for_its_own_parents(made, batches)
    check_order(batches, in_flight, made)
    if settings.max_gpus is not None:
        # what Slurm has already cannot be taken back
        assert most_gpus(batches, in_flight) <= max(settings.max_gpus, sum(gpus for _, gpus in in_flight))


@pytest.mark.parametrize("seed", range(20))
def test_an_array_larger_than_the_cluster_allows_is_cut(seed):
    chance = random.Random(seed)
    count, size = chance.randint(1, 40), chance.randint(1, 9)
    made = families(count, probes=2)
    batches = arrays(made, ClusterSettings(canary_minutes=chance.choice([0, 2])), max_array_size=size)
    check_every_task_is_done_once(made, batches)
    check_indices(batches, size)
    check_each_job_waits_for_its_own_parents(made, batches)
    check_order(batches, [], made)


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_pretrainings_are_one_array_and_what_reads_from_each_one_job_of_another():
    first, second = arrays(families(6))
    assert sizes([first, second]) == [("pretrain", 6, 6), ("probe", 6, 12)]
    assert (first.after, second.after) == ((), (After("aftercorr", first.name),))
    assert first.resources.gpus == 4
    assert second.resources.gpus == 1
    assert list(first.elements) == list(second.elements) == list(range(6))
    assert (first.hours, second.hours) == pytest.approx((48.0, 1.8))


def test_a_thousand_pretrainings_and_their_evaluations_cost_a_handful_of_arrays():
    made = families(1000)
    batches = arrays(made, ClusterSettings(max_gpus=64))
    assert len(batches) <= 6
    assert sum(batch.tasks for batch in batches) == 3000
    check_each_job_waits_for_its_own_parents(made, batches)


def test_nothing_to_do_is_no_array():
    assert arrays(plan()) == []
    assert arrays(plan(planned(pretrain(), Action.REUSE)), ClusterSettings(max_gpus=1)) == []


def test_what_is_done_is_waited_for_by_nobody():
    first, one, scores = family(0)
    (batch,) = arrays(plan(planned(first, Action.REUSE), planned(one), planned(scores)))
    assert (batch.after, batch.tasks) == ((), 2)


def test_what_reads_from_a_running_job_waits_for_that_element_alone():
    tasks = []
    for seed in range(4):
        first, one, _ = family(seed)
        tasks += [planned(first, Action.ATTACH, job=f"old/{seed + 7}"), planned(one)]
    (batch,) = arrays(plan(*tasks))
    assert batch.after == (After("aftercorr", "old"),)
    assert list(batch.elements) == [7, 8, 9, 10]


def test_what_a_process_outside_of_slurm_is_making_is_not_waited_for_by_a_job():
    first, one, scores = family(0)
    other = family(1)
    made = plan(planned(first, Action.ATTACH), planned(one), planned(scores), *(planned(task) for task in other))
    assert [late.task.id for late in batching.postponed(made)] == [one.id, scores.id]
    assert set(places(arrays(made))) == {task.id for task in other}


def test_the_blocked_are_left_out_and_the_retried_are_not():
    first, one, _ = family(0)
    again = pretrain(1)
    made = plan(planned(first, Action.BLOCKED), planned(one, Action.BLOCKED), planned(again, Action.RETRY))
    assert set(places(arrays(made))) == {again.id}


def test_long_evaluations_of_one_parent_do_not_share_a_job():
    first = pretrain()
    probes = [planned(probe(first, number), hours=0.4) for number in range(5)]
    pairs = arrays(plan(planned(first), *probes), ClusterSettings(chain_gpu_hours=1.0))[1:]
    assert sorted(batch.tasks for batch in pairs) == [1, 2, 2]  # an index stands once in an array: three arrays
    assert {batch.after for batch in pairs} == {pairs[0].after}
    together = arrays(plan(planned(first), *probes), ClusterSettings(chain_gpu_hours=2.0))[1:]
    assert [batch.tasks for batch in together] == [5]
    apart = arrays(plan(planned(first), *probes), ClusterSettings(chain_gpu_hours=0.0))[1:]
    assert [batch.tasks for batch in apart] == [1] * 5


def test_a_task_that_two_tables_want_is_done_by_one_job(tmp_path):
    both = [
        expand(tmp_path, STUDY),
        expand(tmp_path, STUDY.replace("[baug, caug]", "[baug, caug, caug_plus]", 1), name="b"),
    ]
    made = make(both, "paper", Store(tmp_path / "runs"), unattended=True)
    check_every_task_is_done_once(made, arrays(made))
    assert sum(batch.tasks for batch in arrays(made)) == 18


def test_the_names_of_arrays_are_safe_and_unique(tmp_path):
    (study,) = studies(["table3"], "tiny", Locations())
    made = make([study], "tiny", Store(tmp_path))
    hostile = Plan(made.profile, ("$(touch x)' \"\n/../ä",), made.tasks)
    names = [batch.name for batch in batching.make(hostile, PLAIN, WANTED)]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for name in names)
    assert names[0].startswith("_touch_x_")


def test_a_place_is_read_back_from_the_name_of_its_job():
    assert Place.of(Place("mine-probe-1/2", 30).job) == Place("mine-probe-1/2", 30)


# --- canaries --------------------------------------------------------------------------------------------------------


def test_the_first_of_an_array_runs_alone_before_the_others():
    made = plan(*(planned(pretrain(seed)) for seed in range(5)))
    canary, rest = arrays(made, ClusterSettings(canary_minutes=7))
    assert (list(canary.elements), list(rest.elements)) == ([0], [1, 2, 3, 4])
    assert canary.elements[0] == (pretrain(0).folder,)
    assert (canary.after, rest.after) == ((), (After("after", canary.name, 7),))
    assert (canary.guards, rest.guards) == ((rest.name,), ())


def test_a_canary_guards_every_part_of_a_cut_array():
    made = plan(*(planned(pretrain(seed)) for seed in range(8)))
    canary, *rest = arrays(made, ClusterSettings(canary_minutes=2), max_array_size=3)
    assert [len(batch.elements) for batch in rest] == [3, 3, 1]
    assert canary.guards == tuple(batch.name for batch in rest)
    assert {batch.after for batch in rest} == {(After("after", canary.name, 2),)}


def test_a_canary_of_children_waits_for_its_parent_and_the_others_for_both():
    pretrainings, *children = arrays(families(4), ClusterSettings(canary_minutes=2))[1:]
    _, canary, rest = children
    assert canary.after == (After("aftercorr", pretrainings.name),)
    assert rest.after == (After("aftercorr", pretrainings.name), After("after", canary.name, 2))


def test_two_jobs_need_no_canary():
    made = plan(*(planned(pretrain(seed)) for seed in range(2)))
    (batch,) = arrays(made, ClusterSettings(canary_minutes=2))
    assert (len(batch.elements), batch.guards) == (2, ())


# --- GPUs ------------------------------------------------------------------------------------------------------------


def test_without_a_limit_all_run_at_once():
    assert [batch.limit for batch in arrays(families(6))] == [None, None]


def test_arrays_that_run_side_by_side_share_the_gpus():
    batches = arrays(families(6), ClusterSettings(canary_minutes=0, max_gpus=26))
    assert [batch.limit for batch in batches] == [6, 2]
    assert sum(batch.gpus for batch in batches) == 26
    assert all(after.rule == "aftercorr" for batch in batches for after in batch.after)


def test_arrays_run_one_after_another_where_that_is_sooner():
    """48 GPU-hours on 8 of 12 GPUs take 6 hours; on all of them, and the 1.8 of the evaluations behind, 4.3."""
    batches = arrays(families(6), ClusterSettings(canary_minutes=0, max_gpus=12))
    assert [batch.limit for batch in batches] == [3, 12]
    assert After("afterany", batches[0].name) in batches[1].after


def test_where_not_even_one_job_of_each_fits_they_run_one_after_another():
    first, second = arrays(families(6), ClusterSettings(max_gpus=4))
    assert (first.limit, second.limit) == (1, 4)
    assert second.after == (After("aftercorr", first.name), After("afterany", first.name))


def test_a_job_larger_than_the_limit_is_refused():
    with pytest.raises(RequestError, match=r"a pretrain job needs 4 GPUs, but `\[cluster\] max_gpus` is 3: raise it"):
        arrays(families(1), ClusterSettings(max_gpus=3))


def test_what_slurm_has_already_counts():
    made = families(6)
    free = arrays(made, ClusterSettings(canary_minutes=0, max_gpus=12), in_flight=[("cpu-only", 0)])
    assert [batch.limit for batch in free] == [2, 4]  # side by side: an array in Slurm cannot be put in front
    less = arrays(made, ClusterSettings(canary_minutes=0, max_gpus=12), in_flight=[("old", 4)])
    assert sum(batch.gpus for batch in less) <= 8
    full = arrays(made, ClusterSettings(canary_minutes=0, max_gpus=12), in_flight=[("old", 12), ("cpu-only", 0)])
    assert full[0].after == (After("afterany", "old"),)
    assert [batch.limit for batch in full] == [3, 12]


def test_a_limit_does_not_slow_what_uses_no_gpu():
    cpu = ClusterSettings(gpus_per_node=0, max_gpus=1, canary_minutes=0)
    batches = arrays(families(6), cpu, in_flight=[("old", 1)])
    assert [(batch.limit, batch.gpus) for batch in batches] == [(None, 0)] * 2
    assert all(after.rule == "aftercorr" for batch in batches for after in batch.after)
