"""The counter-based random numbers: the hash itself, independence of batches, and statistics."""

import numpy as np
import torch

from clever.data import rng


def splitmix_finaliser(value: int) -> int:
    """splitmix64's published finaliser in Python's own integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def test_keys_chain_splitmix64_over_their_parts() -> None:
    step = 0x9E3779B97F4A7C15
    expected = splitmix_finaliser(7)
    for part in (3, -2):
        expected = splitmix_finaliser(expected ^ splitmix_finaliser((part + step) % 2**64))
    assert rng.keys(7, 3, torch.tensor([-2])).item() % 2**64 == expected


def test_seeds_beyond_int64_are_accepted() -> None:
    assert rng.keys(2**64 + 5, 2**63).item() == rng.keys(5, -(2**63)).item()


def test_keys_of_different_parts_differ() -> None:
    rows, columns = torch.arange(300).view(-1, 1), torch.arange(300)
    found = torch.cat([rng.keys(seed, rows, columns).flatten() for seed in range(2)])
    assert len(found.unique()) == len(found)


def test_numbers_do_not_depend_on_the_batch() -> None:
    key = rng.keys(0, torch.arange(64))
    together = rng.uniform(key, 5, (3, 7))
    apart = torch.cat([rng.uniform(part, 5, (3, 7)) for part in key.split([1, 20, 43])])
    assert together.shape == (64, 3, 7)
    assert torch.equal(together, apart)
    assert torch.equal(rng.uniform(key, 5)[10:11], rng.uniform(key[10:11], 5))


def test_numbers_are_uniform() -> None:
    numbers = rng.uniform(rng.keys(1, torch.arange(500)), 0, (401,)).numpy()
    assert numbers.dtype == np.float32 and numbers.min() >= 0 and numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    expected = numbers.size / 100
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 99 + 5 * np.sqrt(2 * 99)
    assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * numbers.size)


def test_neighbouring_keys_draws_and_positions_are_uncorrelated() -> None:
    key = rng.keys(1, torch.arange(20_001))
    plain, neighbour = key[:-1], key[1:]
    streams = [rng.uniform(plain, 0), rng.uniform(neighbour, 0), rng.uniform(plain, 1), rng.uniform(plain + 1, 0)]
    tail = rng.uniform(plain, 0, (4,))
    correlation = np.corrcoef(np.stack([*(stream.numpy() for stream in streams), *tail.numpy().T]))
    # the tail's numbers come from hashes of their own: none repeats the plain draw
    off_diagonal = np.abs(correlation - np.eye(len(correlation))).max()
    assert off_diagonal < 5 / np.sqrt(20_000)
