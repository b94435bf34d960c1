"""What counts as diverged, what as a warning, and what is only a slow start."""

import math

import pytest

from clever.train.health import Diverged, Health

LN_K = math.log(256)


def see(health: Health, step: int, contrastive: float = 3.0, loss: float = 3.0, **numbers) -> None:
    health.check(step, {"loss": loss, "contrastive": contrastive}, {"ln_k": LN_K, **numbers})


def run(total: int, warmup: int, at_ln_k: range) -> Health:
    """A run that is read every ten steps and whose base loss is at ln K at the given steps."""
    health = Health(total, warmup)
    for step in range(10, total + 1, 10):
        see(health, step, contrastive=LN_K + 0.001 if step in at_ln_k else LN_K - 0.5)
    return health


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_a_loss_that_is_no_number_is_named_with_its_step(loss, word):
    with pytest.raises(Diverged, match=f"loss is {word} at step 12"):
        see(Health(100, 10), 12, loss=loss)


def test_a_norm_that_falls_below_a_millionth_of_its_start_is_a_collapse():
    health = Health(100, 10)
    see(health, 1, head_norm_ef=1.5, head_norm_ir=1.5)
    see(health, 10, head_norm_ef=-4.4, head_norm_ir=1.5)
    with pytest.raises(Diverged, match=r"head_norm_ef .* -4\.6 at step 20 .* 1\.5"):
        see(health, 20, head_norm_ef=-4.6, head_norm_ir=1.5)


def test_a_norm_of_zero_is_a_collapse():
    health = Health(100, 10)
    see(health, 1, z_ef=0.0)
    with pytest.raises(Diverged, match="z_ef"):
        see(health, 2, z_ef=-math.inf)


def test_a_healthy_run_has_no_warnings():
    assert run(1000, 100, at_ln_k=range(0)).warnings() == []


def test_a_loss_at_ln_k_for_most_of_the_training_is_a_warning():
    (warning,) = run(1000, 100, at_ln_k=range(0, 700)).warnings()
    assert "590 of 900" in warning


def test_a_loss_at_ln_k_for_a_third_of_the_training_is_a_slow_start():
    assert run(1000, 100, at_ln_k=range(0, 400)).warnings() == []


def test_a_loss_that_never_leaves_ln_k_is_a_failure():
    with pytest.raises(Diverged, match="never left"):
        run(1000, 100, at_ln_k=range(0, 1001)).warnings()


def test_a_short_run_at_ln_k_is_neither():
    assert run(150, 10, at_ln_k=range(0, 1001)).warnings() == []


def test_steps_of_warm_up_do_not_count():
    assert run(400, 250, at_ln_k=range(0, 1001)).warnings() == []


def test_what_was_seen_survives_a_checkpoint():
    whole, parts = run(1000, 100, at_ln_k=range(0, 700)), Health(1000, 100)
    for step in range(10, 1001, 10):
        state, parts = parts.state(), Health(1000, 100)
        parts.load(state)
        see(parts, step, contrastive=LN_K + 0.001 if step < 700 else LN_K - 0.5)
    assert parts.state() == whole.state()


# --- one answer for all images ----------------------------------------------------------------------------------------


def watch(total: int, collapsed: range, numbers: dict[str, float], contrastive: float = 1.0) -> Health:
    """A run without warm-up, read every ten steps; within ``collapsed`` it has these numbers, else healthy ones."""
    health = Health(total, 0)
    for step in range(10, total + 1, 10):
        now = step in collapsed
        healthy = dict.fromkeys(numbers, 0.7)
        health.check(
            step, {"loss": 1.0, "contrastive": contrastive if now else 1.0}, {**healthy, **(numbers if now else {})}
        )
    return health


PROTOTYPE = {"numbers": {"teacher_entropy": 0.001}, "contrastive": 0.002}
POINT = {"numbers": {"spread": 0.004}}


@pytest.mark.parametrize(("collapse", "word"), [(PROTOTYPE, "one and the same prototype"), (POINT, "one point")])
def test_a_collapse_of_all_images_is_a_warning_when_it_is_long_or_at_the_end(collapse, word):
    (long,) = watch(1000, range(0, 600), **collapse).warnings()
    assert word in long and "590 of 1000 steps" in long and "last in step 590" in long
    (late,) = watch(1000, range(980, 1001), **collapse).warnings()
    assert word in late and "30 of 1000 steps" in late
    assert watch(1000, range(0, 400), **collapse).warnings() == []
    assert watch(1000, range(0), **collapse).warnings() == []


def test_a_small_loss_or_a_small_entropy_alone_is_no_collapse():
    everywhere = range(0, 1001)
    assert watch(1000, everywhere, {"teacher_entropy": 0.001}, contrastive=0.1).warnings() == []
    assert watch(1000, everywhere, {"teacher_entropy": 0.1}, contrastive=0.001).warnings() == []
    assert watch(1000, everywhere, {}, contrastive=0.0).warnings() == []  # of a base without prototypes
    assert watch(1000, everywhere, {"spread": 0.1}).warnings() == []


def test_what_was_seen_of_a_collapse_survives_a_checkpoint_and_older_checkpoints_are_read():
    first = watch(1000, range(0, 600), **POINT)
    again = Health(1000, 0)
    again.load(first.state())
    assert again.warnings() == first.warnings() != []
    older = {name: value for name, value in first.state().items() if name != "collapsed"}
    again.load(older)
    assert again.warnings() == []
