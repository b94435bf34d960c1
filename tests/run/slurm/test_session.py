"""`clever run`, `plan`, `retry` and `cancel` on a cluster, in this process and with a fake one."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clever.commands.ask import look_again
from clever.errors import RequestError
from clever.failures import Cause, journal, record
from clever.lease import Lease, holder
from clever.names import Action, State, TaskKind
from clever.request import Request
from clever.run.slurm import session
from clever.settings import Settings
from clever.store import Store
from tests.run.slurm.asking import PAIR, ask, fail, finish, run, tasks
from tests.run.slurm.conftest import Site

# --- which executor --------------------------------------------------------------------------------------------------


def settings(executor: str = "auto") -> Settings:
    return Settings(executor=executor)


def test_auto_means_slurm_where_there_is_a_cluster(fake):
    assert session.executor("auto", settings()) == "slurm"


def test_auto_means_this_machine_without_sbatch(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert session.executor("auto", settings()) == "local"


def test_auto_means_this_machine_where_sbatch_belongs_to_no_cluster(fake):
    fake.fail_next("scontrol", "scontrol: fatal: Could not establish a configuration source")
    assert session.executor("auto", settings()) == "local"


def test_auto_means_this_machine_inside_a_job(fake, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    assert session.executor("auto", settings()) == "local"
    assert session.executor("slurm", settings()) == "slurm"  # who asks for it gets it


def test_a_cluster_that_does_not_answer_is_no_reason_to_compute_on_the_login_node(fake):
    fake.down()
    for given in ("auto", "slurm"):
        with pytest.raises(RequestError, match="Slurm does not answer"):
            session.executor(given, settings())
    assert session.executor("local", settings()) == "local"


def test_slurm_is_refused_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for given, own in (("slurm", "auto"), ("auto", "slurm")):
        with pytest.raises(RequestError, match="no Slurm cluster here"):
            session.executor(given, settings(own))


def test_the_command_line_wins_over_the_settings(fake):
    assert session.executor("auto", settings("local")) == "local"
    assert session.executor("local", settings("slurm")) == "local"
    assert session.executor("auto", settings("slurm")) == "slurm"


# --- run -------------------------------------------------------------------------------------------------------------


def test_everything_is_queued_and_the_same_again_queues_nothing(site):
    request = ask(site)
    first = run(request)
    assert (first.exit_code, first.outcome.tasks, first.postponed) == (0, 7, [])  # and the control
    before = dict(site.fake.jobs())
    again = run(request)
    assert (again.exit_code, again.outcome.queued) == (0, [])
    assert {planned.action for planned in again.plan.tasks} == {Action.ATTACH}
    assert site.fake.jobs() == before


def test_what_died_is_queued_again_and_the_rest_is_left_alone(site):
    request = ask(site)
    run(request)
    dead = tasks(request)["pretrain dino"]
    job = look_again(request).store.status(dead).job
    site.fake.set_state(job, "RUNNING")
    site.fake.set_state(job, "NODE_FAIL")
    again = run(request)
    queued = [folder for batch, _ in again.outcome.queued for folders in batch.elements.values() for folder in folders]
    assert queued == [dead.folder]


def test_what_is_done_is_not_queued(site):
    request = ask(site)
    for key in ("pretrain dino", "probe dino", "perturbed dino"):
        finish(site, tasks(request)[key])
    assert run(request).outcome.tasks == 4


def test_two_tables_share_their_tasks(site):
    assert run(ask(site, "one", "two")).outcome.tasks == 7
    assert run(ask(site, "two")).outcome.tasks == 0


def test_an_interrupted_submission_is_finished_by_the_next(site):
    request = ask(site)
    run(request)
    for path in (site.root / "jobs").glob("*/job.json"):
        path.unlink()
        values = json.loads((path.parent / "batch.json").read_text())
        (path.parent / "batch.json").write_text(json.dumps({**values, "started": "1"}))
    finish(site, tasks(request)["pretrain dino"])  # so that there is something to plan
    before = dict(site.fake.jobs())
    one = ask(
        site,
        "other",
        text=PAIR.replace("[baug]\n  method", "[caug]\n  method")
        .replace("[baug]", "[caug]")
        .replace("{baug:", "{caug:"),
    )
    run(one)
    assert all(
        json.loads((path.parent / "job.json").read_text())["id"] for path in (site.root / "jobs").glob("*/batch.json")
    )
    assert set(before) <= set(site.fake.jobs())
    assert run(request).outcome.tasks == 0


# --- asking, and refusing beforehand ---------------------------------------------------------------------------------


def assert_nothing_was_done(site: Site) -> None:
    assert site.fake.jobs() == {}
    assert not list(site.root.glob("*/spec.json")) or all(
        holder(path.parent) is None for path in site.root.glob("*/spec.json")
    )
    assert not (site.root / "jobs" / session.WANTED).exists()


def test_what_costs_much_is_asked_about(site):
    asked: list[str] = []

    def answer(value: bool):
        return lambda question: asked.append(question) or value

    request = ask(site, ask_above_gpu_hours=0)
    with pytest.raises(RequestError, match=r"not submitted: about .* ask_above_gpu_hours = 0`; give --yes"):
        session.carry_out(request, look_again, answer(False), lambda text: None)
    assert_nothing_was_done(site)
    assert session.carry_out(request, look_again, answer(True), lambda text: None).outcome.tasks == 7
    assert len(asked) == 2
    assert "GPU-hours" in asked[0]


def test_what_is_queued_already_costs_no_question(site):
    run(ask(site))
    run(ask(site, ask_above_gpu_hours=0))


def test_a_batch_that_the_processes_cannot_share_is_refused_beforehand(site):
    request = ask(site, pretrain=site.settings.cluster.pretrain.model_copy(update={"gpus_per_node": 4}))
    request.studies[0].profile.devices.update({TaskKind.PRETRAIN: "all"})
    with pytest.raises(RequestError) as refused:
        run(request)
    assert len(refused.value.messages) == 2
    assert "4 processes: global_batch 50 cannot be cut evenly into 4 ranks" in refused.value.messages[0]
    assert_nothing_was_done(site)


def test_what_slurm_would_refuse_is_refused_before_anything_is_queued(site):
    for cluster, words in (
        ({"partition": "none"}, "invalid partition specified"),
        ({"gpu_type": "h100"}, "not available"),
    ):
        with pytest.raises(RequestError) as refused:
            run(ask(site, **cluster))
        assert all(message.startswith("Slurm would refuse ") and words in message for message in refused.value.messages)
        assert_nothing_was_done(site)


def test_data_that_are_not_there_are_told_before_anything_is_queued(site, monkeypatch):
    def missing(self: Request, specs: Iterable[Any]) -> None:
        raise RequestError(f"no {sorted({spec.dataset for spec in specs})}")

    monkeypatch.setattr(Request, "check_data", missing)
    with pytest.raises(RequestError, match="no .'digits'"):
        run(ask(site))
    assert_nothing_was_done(site)


@pytest.mark.parametrize("name", ["50%", "a\nb"])
def test_a_store_that_slurms_log_names_cannot_have_is_refused(site, tmp_path, name):
    request = ask(site)
    request = replace(request, settings=request.settings.model_copy(update={"store": tmp_path / name}))
    with pytest.raises(RequestError, match="has a character that Slurm's log names cannot have"):
        run(request)


def test_a_refusal_in_the_middle_is_told_and_the_exit_code_is_one(site, monkeypatch):
    from clever.run.slurm.scheduler import Refused, Slurm

    queue, calls = Slurm.submit, []

    def refuse(self: Slurm, path: Path) -> str:
        calls.append(path)
        if len(calls) > 1:
            raise Refused("QOSMaxSubmitJobPerUserLimit")
        return queue(self, path)

    monkeypatch.setattr(Slurm, "submit", refuse)
    done = run(ask(site))
    assert (done.exit_code, len(done.outcome.queued), len(done.outcome.refused)) == (1, 1, 1)


def test_a_request_of_which_nothing_is_taken_is_a_wrong_one(site, monkeypatch):
    from clever.run.slurm.scheduler import Refused, Slurm

    def refuse(self: Slurm, path: Path) -> str:
        raise Refused("Requested node configuration is not available")

    monkeypatch.setattr(Slurm, "submit", refuse)
    with pytest.raises(RequestError, match="Slurm refused pretrain: Requested node configuration"):
        run(ask(site))
    assert not [path for path in site.root.glob("*/lease-*.json") if not json.loads(path.read_text())["released"]]


def test_what_would_fail_again_is_not_queued_and_the_exit_code_says_so(site):
    request = ask(site)
    fail(site, tasks(request)["pretrain dino"])
    done = run(request)
    assert (done.exit_code, done.outcome.tasks) == (1, 4)
    assert sorted(str(planned.task.kind) for planned in done.blocked) == ["perturbed", "pretrain", "probe"]


def test_what_waits_for_a_process_outside_of_slurm_is_postponed_and_told(site):
    request = ask(site)
    Lease.take(Store(site.root).prepare(tasks(request)["pretrain dino"]))
    done = run(request)
    assert (done.exit_code, done.outcome.tasks, len(done.postponed)) == (1, 4, 2)


# --- retry -----------------------------------------------------------------------------------------------------------


def test_retry_forgives_and_queues_what_failed_and_what_waits_for_it(site):
    request = ask(site)
    path = fail(site, tasks(request)["pretrain dino"])
    done = run(request, only_failed=True)
    queued = {folder for batch, _ in done.outcome.queued for folders in batch.elements.values() for folder in folders}
    assert queued == {tasks(request)[f"{kind} dino"].folder for kind in ("pretrain", "probe", "perturbed")}
    assert done.exit_code == 0
    assert journal(path)[-1]["event"] == "retry"
    assert look_again(request).store.status(tasks(request)["pretrain dino"]).state is State.PENDING


def test_retry_asks_about_the_cost_before_it_forgives(site):
    request = ask(site, ask_above_gpu_hours=0)
    path = fail(site, tasks(request)["pretrain dino"])
    with pytest.raises(RequestError, match="GPU-hours"):
        session.carry_out(request, look_again, lambda question: False, lambda text: None, True)
    assert journal(path)[-1]["event"] == "end"
    assert look_again(request).store.status(tasks(request)["pretrain dino"]).state is State.FAILED
    assert site.fake.jobs() == {}


def test_retry_without_failures_queues_nothing(site):
    done = run(ask(site), only_failed=True)
    assert (done.outcome.tasks, done.exit_code) == (0, 0)
    assert site.fake.jobs() == {}


def test_after_a_retry_the_limits_count_anew(site):
    request = ask(site)
    for _ in range(6):
        path = fail(site, tasks(request)["pretrain dino"], Cause.NODE)
    assert len(run(request).blocked) == 3
    run(request, only_failed=True)
    record(path, event="end", job="9_0", restart=0, cause=Cause.NODE, steps=0)
    Store(site.root).write_status(path, State.FAILED, reason="no")
    assert [e["event"] for e in journal(path)].count("retry") == 1


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_cancel_ends_the_jobs_and_frees_what_they_had(site):
    request = ask(site)
    run(request)
    site.fake.set_state(next(iter(site.fake.jobs())), "RUNNING")
    request = look_again(request)
    done = session.cancel(request, request.plan())
    assert (len(done.tasks), done.kept) == (7, [])
    assert set(site.fake.jobs().values()) == {"CANCELLED"}
    request = look_again(request)
    assert {request.store.status(planned.task).holder for planned in request.plan().tasks} == {None}
    assert not list((site.root / "jobs" / session.WANTED).glob("*.json"))
    assert run(request).outcome.tasks == 7


def test_cancel_keeps_what_another_submitted_table_needs(site):
    both = PAIR.replace("[baug]\n  method", "[baug, caug]\n  method")
    run(ask(site, "small"))
    run(ask(site, "large", text=both))
    request = ask(site, "large", text=both)
    done = session.cancel(request, request.plan())
    assert len(done.tasks) == 6  # the chains of caug
    assert len(done.kept) == 7
    assert {label for _, label in done.kept} == {"small-tiny"}
    request = ask(site, "small")
    assert {planned.action for planned in request.plan().tasks} == {Action.ATTACH}
    assert session.cancel(request, request.plan()).kept == []
    assert set(site.fake.jobs().values()) == {"CANCELLED"}


def test_a_table_whose_tasks_are_done_keeps_nothing(site):
    run(ask(site, "small"))
    request = ask(site, "small")
    for planned in request.plan().tasks:
        finish(site, planned.task)
    assert session.cancel(request, request.plan()).tasks == []


def test_cancel_with_nothing_queued_asks_nothing_of_slurm(site):
    request = ask(site)
    done = session.cancel(request, request.plan())
    assert (done.tasks, done.kept, site.fake.calls) == ([], [], [])


def test_a_cancel_that_cannot_reach_slurm_is_refused_and_changes_nothing(site):
    request = ask(site)
    run(request)
    site.fake.down()
    request = look_again(request)
    with pytest.raises(RequestError, match="Slurm does not answer"):
        session.cancel(request, request.plan())
    site.fake.down(False)
    request = look_again(request)
    assert {planned.action for planned in request.plan().tasks} == {Action.ATTACH}
    assert list((site.root / "jobs" / session.WANTED).glob("*.json"))


def test_nobody_waits_on_this_machine_for_jobs_of_a_cluster_that_does_not_answer(site):
    from clever.run import session as local

    run(ask(site))
    request = replace(ask(site), jobs=None)
    with pytest.raises(RequestError, match="the scheduler does not answer.*remove the lease") as refused:
        local.carry_out(request, request.plan(), print, quiet=True)
    assert len(refused.value.messages) == len(request.plan().tasks)
