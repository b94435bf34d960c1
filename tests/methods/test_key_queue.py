"""MoCo's queue: what is in it, in which order, and what never is."""

import pytest
import torch

from clever.methods.queue import KeyQueue


def keys(*numbers: int) -> torch.Tensor:
    """One key for each number: a direction of its own in the plane."""
    angles = torch.tensor(numbers) / 10
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def numbers(queue: KeyQueue) -> list[int]:
    return (torch.atan2(queue.keys[:, 1], queue.keys[:, 0]) * 10).round().int().tolist()


def fed(length: int, *batches: tuple[int, ...]) -> KeyQueue:
    torch.manual_seed(0)
    queue = KeyQueue(length, 2)
    for batch in batches:
        queue.remember(3 * keys(*batch))
        queue.update()
    return queue


def test_the_newest_keys_replace_the_oldest_also_where_the_batch_does_not_fit_evenly():
    assert numbers(fed(5, (1, 2), (3, 4), (5, 6))) == [6, 2, 3, 4, 5]


def test_of_a_batch_that_is_longer_than_the_queue_the_end_stays():
    assert sorted(numbers(fed(3, (1, 2, 3, 4, 5)))) == [3, 4, 5]


def test_it_begins_with_random_keys_and_holds_only_keys_of_unit_length():
    for queue in (fed(4), fed(4, (1, 2, 3))):
        torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(4))
    assert not torch.equal(KeyQueue(4, 2).keys, KeyQueue(4, 2).keys)


def test_keys_join_after_the_step_only():
    queue = fed(2, (1, 2))
    queue.remember(keys(3, 4))
    assert numbers(queue) == [1, 2]


def test_an_update_needs_a_batch():
    queue = fed(2, (1, 2))
    with pytest.raises(RuntimeError, match="before any batch"):
        queue.update()


def test_keys_and_place_are_part_of_the_state():
    queue, other = fed(5, (1, 2), (3, 4)), fed(5)
    other.load_state_dict(queue.state_dict())
    for one in (queue, other):
        one.remember(keys(5, 6))
        one.update()
    assert numbers(other) == numbers(queue) == [6, 2, 3, 4, 5]
