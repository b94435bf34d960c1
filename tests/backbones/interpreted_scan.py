"""Runs the fused scan in Triton's interpreter: reads a list of cases from one file and writes the answers to another.

A process of its own, since TRITON_INTERPRET=1 must be set before Triton is imported for the first time.
"""

import sys

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from clever.backbones import scan_triton


def hasten_the_interpreter() -> None:
    """It prepares Triton's language at every call of a function and scans number by number: minutes for these cases."""
    for function in (scan_triton._forward, tl.sum):  # the two sides from which the language is seen
        interpreter._patch_lang(function.fn)
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()
    interpreter.ScanOps.generic_scan = scan_by_doubling


def scan_by_doubling(scan: interpreter.ScanOps, inputs: tuple[tl.tensor, ...]) -> list[tl.tensor]:
    """Whole tiles at once: row t is combined with row t - 1, then with row t - 2, t - 4 and so on."""
    tiles = [tensor.handle.data.copy() for tensor in inputs]
    assert scan.axis == 0 and not scan.reverse
    distance = 1
    while distance < len(tiles[0]):
        later = [scan.to_tensor(tile, tl.float32) for tile in tiles]
        earlier = [scan.to_tensor(np.roll(tile, distance, axis=0), tl.float32) for tile in tiles]
        for tile, combined in zip(tiles, scan.combine_fn.fn(*earlier, *later), strict=True):
            tile[distance:] = combined.handle.data[distance:]
        distance *= 2
    return [scan.to_tensor(tile, tl.float32) for tile in tiles]


def answer(case: dict) -> list[torch.Tensor]:
    scan_triton.CHUNK, scan_triton.CHANNELS = case["chunk"], case["channels"]
    inputs = [tensor.requires_grad_() for tensor in case["inputs"]]
    value = scan_triton.fused_scan(*inputs, case["height"], case["width"])[0]
    return [value.detach(), *torch.autograd.grad(value, inputs, case["gradient"])]


if __name__ == "__main__":
    torch.set_num_threads(1)
    hasten_the_interpreter()
    torch.save([answer(case) for case in torch.load(sys.argv[1], weights_only=True)], sys.argv[2])
