"""Claims: the verdict on hand-made numbers, the margins against plain NumPy, and the paper's own numbers."""

import numpy as np
import pytest

from clever.catalog import Locations
from clever.errors import RequestError
from clever.grid import studies
from clever.names import State, Verdict
from clever.reports import judge

STUDY = """
title: My study
pretrain: {dataset: digits, backbone: vit_nano, epochs: 2}
grid:
  augmentation: [baug, caug]
  method: [dino, clever]
evaluate:
  - {task: perturbed, perturbation: [orig, cj_ro]}
table:
  group: augmentation
  rows: [{label: DINO, method: dino}]
claims:
  - id: better
    text: CLeVER is better.
    where: here
    cells: [{method: clever}, {method: dino}]
    each: {augmentation: [baug, caug], perturbation: [orig, cj_ro]}
"""


def verdict_of(own_study, store, helpers, score, images=1000, seeds=None):
    study = own_study(STUDY, seeds=seeds)
    (judgement,) = judge([study], helpers.fill(store, study, score, images))
    return judgement


def by_method(dino: float, clever: float):
    return lambda place: {"dino": dino, "clever": clever}.get(place["method"], 0.0)


def test_every_claim_of_table_3_holds_on_the_papers_own_numbers(table3, store):
    judged = judge([table3()], store, on="paper")
    assert {judgement.id: judgement.verdict for judgement in judged} == {
        "equivariance-helps-under-perturbation": Verdict.HOLDS,
        "factors-add-to-the-invariant-part-under-rotation": Verdict.HOLDS,
        "gain-over-vanilla-dino-under-rotation": Verdict.HOLDS,
        "gain-over-vanilla-dino-under-elastic-transformation": Verdict.HOLDS,
    }
    assert [len(judgement.pairs) for judgement in judged] == [12, 3, 1, 1]
    assert "73.8 vs 52.7 (+21.1)" in judged[2].evidence
    assert "71.7 vs 41.0 (+30.7)" in judged[3].evidence
    assert store.reads == 0


def test_the_claims_of_table_2_and_figure_1b_hold_on_the_papers_own_numbers(store):
    table2, figure1b = studies(["table2", "figure1b"], "paper", Locations())
    robust, rotation, elastic = judge([table2], store, on="paper")
    assert [claim.verdict for claim in (robust, rotation, elastic)] == [Verdict.HOLDS] * 3
    assert len(robust.pairs) == 12, "every perturbation, also those that pre-training has not seen"
    assert "CAug, CJ+Ro+ET 48.1 vs 48.5 (-0.4)" in robust.evidence
    assert "77.6 vs 50.3 (+27.3)" in rotation.evidence and "75.5 vs 27.3 (+48.2)" in elastic.evidence
    assert [claim.verdict for claim in judge([figure1b], store, on="paper")] == [Verdict.HOLDS]


def test_numbers_printed_alike_in_the_paper_are_undecided_and_reversed_ones_fail(own_study, store):
    def claim(left: str, right: str) -> str:
        return f"""
title: The paper's numbers
paper: {{table: 3}}
pretrain: {{dataset: imagenet100, backbone: vit_small, epochs: 500}}
grid: {{augmentation: [caug, caug_plus], method: [dino, clever]}}
evaluate: [{{task: perturbed}}]
table: {{group: augmentation, rows: [{{label: DINO, method: dino}}]}}
claims:
  - {{id: one, text: One., where: here, cells: [{left}, {right}]}}
"""

    alike = "{method: clever, augmentation: caug_plus, representation: invariant, perturbation: cj_flip}"  # 73.8
    same = "{method: clever, augmentation: caug_plus, perturbation: cj_ro}"  # 73.8
    less = "{method: clever, augmentation: caug_plus, perturbation: cj_ro_et}"  # 71.7
    verdicts = [
        judge([own_study(claim(*cells))], store, on="paper")[0].verdict
        for cells in ((alike, same), (less, same), (same, less))
    ]
    assert verdicts == [Verdict.UNDECIDED, Verdict.FAILS, Verdict.HOLDS]


def test_a_claim_that_the_paper_prints_no_number_for_is_not_measured_on_it(own_study, store):
    (judgement,) = judge([own_study(STUDY)], store, on="paper")
    assert judgement.verdict is Verdict.NOT_MEASURED
    assert "not printed in the paper" in judgement.evidence


def test_a_claim_holds_where_every_pair_differs_by_more_than_two_standard_errors(own_study, store, helpers):
    judgement = verdict_of(own_study, store, helpers, by_method(70.0, 75.0))
    p = np.array([0.70, 0.75])
    margin = 100 * 2 * np.sqrt((p * (1 - p) / 1000).sum())
    assert margin < 5
    assert judgement.verdict is Verdict.HOLDS
    assert [pair.margin for pair in judgement.pairs] == pytest.approx([margin] * 4)
    assert judgement.pairs[0].difference == pytest.approx(5.0)


def test_fewer_test_images_leave_the_same_difference_undecided(own_study, store, helpers):
    assert verdict_of(own_study, store, helpers, by_method(70.0, 75.0), images=100).verdict is Verdict.UNDECIDED


def test_equal_numbers_are_undecided_even_without_any_error(own_study, store, helpers):
    judgement = verdict_of(own_study, store, helpers, by_method(100.0, 100.0))
    assert judgement.pairs[0].margin == 0.0
    assert judgement.verdict is Verdict.UNDECIDED


def test_one_clearly_reversed_pair_makes_a_claim_fail(own_study, store, helpers):
    def score(place):
        reversed_here = place.get("augmentation") == "caug" and place["perturbation"] == "cj_ro"
        return by_method(90.0, 60.0)(place) if reversed_here else by_method(60.0, 90.0)(place)

    judgement = verdict_of(own_study, store, helpers, score)
    assert judgement.verdict is Verdict.FAILS
    assert "4 pairs: 3 greater, 1 smaller" in judgement.evidence
    assert "CAug, CJ+Ro 60.0 vs 90.0 (-30.0" in judgement.evidence


def on_average(own_study, store, helpers, score, images=1000):
    study = own_study(STUDY.replace("    each:", "    relation: greater_on_average\n    each:"))
    (judgement,) = judge([study], helpers.fill(store, study, score, images))
    return judgement


def test_a_claim_on_the_average_weighs_a_reversed_pair_against_the_others(own_study, store, helpers):
    def score(place):  # one of four pairs is reversed
        gain = -4.0 if (place.get("augmentation"), place["perturbation"]) == ("caug", "cj_ro") else 8.0
        return 70.0 + (gain if place["method"] == "clever" else 0.0)

    judgement = on_average(own_study, store, helpers, score)
    shares = np.array([[0.70, 0.78], [0.70, 0.78], [0.70, 0.78], [0.70, 0.66]])
    margin = (100 * 2 * np.sqrt((shares * (1 - shares) / 1000).sum(axis=1))).mean()
    assert judgement.verdict is Verdict.HOLDS
    assert judgement.evidence.startswith(f"on average 75.0 vs 70.0 (+5.0 ±{margin:.1f}). 4 pairs: 3 greater, 1 within")
    assert on_average(own_study, store, helpers, score, images=600).verdict is Verdict.UNDECIDED
    opposite = on_average(own_study, store, helpers, lambda place: 140.0 - score(place))
    assert opposite.verdict is Verdict.FAILS


def test_an_average_of_which_a_part_is_missing_is_not_measured(own_study, store, helpers):
    study = own_study(STUDY.replace("    each:", "    relation: greater_on_average\n    each:"))
    helpers.fill(store, study, by_method(70.0, 90.0))
    store.set(helpers.perturbed_of(study, method="clever", augmentation="caug")[0], State.RUNNING)
    (judgement,) = judge([study], store)
    assert judgement.verdict is Verdict.NOT_MEASURED


def test_numbers_of_several_units_have_no_average(own_study, store, helpers):
    text = STUDY.replace("caug], perturbation: [orig, cj_ro]}", "caug], perturbation: [orig], metric: [top1, parameters]}")
    study = own_study(text.replace("    each:", "    relation: greater_on_average\n    each:"))
    for results in (store, helpers.fill(store, study, by_method(70.0, 75.0))):  # nothing measured yet, and everything
        with pytest.raises(RequestError, match="claim `better` averages numbers of several units"):
            judge([study], results)


def test_one_undecided_pair_keeps_a_claim_from_holding(own_study, store, helpers):
    def score(place):
        return by_method(60.0, 60.5 if place["perturbation"] == "orig" else 90.0)(place)

    assert verdict_of(own_study, store, helpers, score).verdict is Verdict.UNDECIDED


def test_several_seeds_give_the_margin_from_their_own_spread(own_study, store, helpers):
    spread = {"0": 0.0, "1": 1.0, "2": 5.0}

    def score(place):
        own = {"dino": 60.0, "clever": 70.0 + spread[place["seed"]]}
        return own.get(place["method"], 0.0) + spread[place["seed"]]

    judgement = verdict_of(own_study, store, helpers, score, images=3, seeds="3")
    dino = 60 + np.array([0.0, 1.0, 5.0])
    clever = 70 + 2 * np.array([0.0, 1.0, 5.0])
    margin = 2.776 * np.sqrt(dino.var(ddof=1) / 3 + clever.var(ddof=1) / 3)  # t at 95 %, 4 degrees of freedom
    assert judgement.pairs[0].margin == pytest.approx(margin)
    assert judgement.pairs[0].difference == pytest.approx(clever.mean() - dino.mean())
    assert judgement.verdict is Verdict.HOLDS
    assert "95 % from the spread of 3 seeds" in judgement.evidence


def test_two_seeds_decide_less_than_two_standard_errors_would(own_study, store, helpers):
    def score(place):
        return by_method(60.0, 63.0)(place) + 2 * int(place["seed"])

    judgement = verdict_of(own_study, store, helpers, score, images=10**6, seeds="2")
    error = np.sqrt(2 * np.array([0.0, 2.0]).var(ddof=1) / 2)
    assert 2 * error < 3 < 4.303 * error
    assert judgement.pairs[0].margin == pytest.approx(4.303 * error)
    assert judgement.verdict is Verdict.UNDECIDED


def test_repeated_probes_of_one_pre_training_do_not_narrow_the_margin(own_study, store, helpers):
    def score(place):
        return by_method(60.0, 63.0)(place) + 0.01 * int(place["probe_seed"])

    judgement = verdict_of(own_study, store, helpers, score, images=100, seeds="probe=5")
    sampling = 2 * 100 * np.sqrt(0.6002 * 0.3998 / 100 + 0.6302 * 0.3698 / 100)
    assert judgement.pairs[0].margin == pytest.approx(sampling)
    assert judgement.verdict is Verdict.UNDECIDED


def test_a_claim_with_any_unfinished_cell_is_not_measured(own_study, store, helpers):
    study = own_study(STUDY)
    helpers.fill(store, study, by_method(60.0, 90.0))
    store.set(helpers.perturbed_of(study, augmentation="caug", method="dino")[0], State.RUNNING)
    (judgement,) = judge([study], store)
    assert judgement.verdict is Verdict.NOT_MEASURED
    assert "90.0 vs - (running)" in judgement.evidence
    assert "2 greater" in judgement.evidence


def test_a_cell_of_which_seeds_are_missing_is_not_judged_yet(own_study, store, helpers):
    study = own_study(STUDY, seeds="probe=2")
    helpers.fill(store, study, by_method(60.0, 90.0))
    store.set(helpers.perturbed_of(study, augmentation="baug", method="clever")[1], State.PENDING)
    (judgement,) = judge([study], store)
    assert judgement.verdict is Verdict.NOT_MEASURED
    assert "pending, 1 of 2 seeds" in judgement.evidence


def test_the_evidence_says_its_rule(own_study, store, helpers):
    evidence = verdict_of(own_study, store, helpers, by_method(60.0, 90.0)).evidence
    assert evidence.endswith("Rule: within ± is undecided: 2 standard errors of sampling 1000 test images.")


def test_a_claim_without_a_perturbation_is_refused(own_study, store):
    text = STUDY.replace(", perturbation: [orig, cj_ro]}\n", "}\n")
    assert text != STUDY
    with pytest.raises(RequestError, match="claim `better` does not say under which perturbation"):
        judge([own_study(text)], store)


def test_an_unknown_source_of_numbers_is_refused(table3, store):
    with pytest.raises(RequestError, match="did you mean `paper`"):
        judge([table3()], store, on="papers")
