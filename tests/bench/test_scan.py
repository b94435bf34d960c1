"""`clever bench scan` without a GPU, and the bytes that its shares of bandwidth rest on."""

import pytest
import torch

from clever.bench import scan


@pytest.fixture(autouse=True)
def small_on_a_cpu(monkeypatch):
    monkeypatch.setattr(scan, "STAGES", ((4, 8), (2, 16)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_cpu_measures_the_plain_scan_and_says_what_the_kernel_needs():
    figures = scan.bench_scan(2)
    assert [figure.name.partition(":")[0] for figure in figures] == [
        f"{size} channels, {what}" for size in ("4x4, 8", "2x2, 16") for what in ("forward", "and backward")
    ]
    for figure in figures:
        assert "the fused kernel needs a GPU" in figure.name
        assert figure.unit == "s" and len(figure.values) == 2 and min(figure.values) > 0


def test_bytes_are_counted_once_in_each_direction():
    inputs = scan.scan_inputs("cpu", torch.bfloat16, 4, 8)
    x, dt, b, parameter = 16 * 8 * 2, 4 * 16 * 8 * 2, 4 * 16 * 2, 4 * 8 * 4
    result = 16 * 8 * 4
    read = x + dt + 2 * b + 2 * parameter
    assert scan.forward_bytes(inputs) == read + result
    assert scan.both_bytes(inputs) == (read + result) + (read + result + read)
