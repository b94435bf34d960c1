"""Clusters for the tests of this folder; those that use one are slow, and skipped where none can be started."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, available

CLUSTER_FIXTURES = {"cluster", "new_cluster"}
# read at import: the tests' own world hides the variable later
REQUIRED = "slurm" in os.environ.get("CLEVER_REQUIRE", "").split(",")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and CLUSTER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def need_slurm(accounting: bool = True, required: bool = REQUIRED) -> None:
    """Skips the test where no cluster can be started; fails it where CLEVER_REQUIRE names slurm."""
    if reason := available(accounting):
        if required:
            pytest.fail(f"CLEVER_REQUIRE asks for slurm, but: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that the tests share, with accounting; leave no job in it that others would wait for."""
    need_slurm()
    with Cluster(tmp_path_factory.mktemp("slurm")) as shared:
        yield shared


@pytest.fixture
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster of the test's own with the keywords of `Cluster`; it is stopped after the test."""
    with ExitStack() as stack:

        def start(**options: object) -> Cluster:
            need_slurm(accounting=bool(options.get("accounting", True)))
            return stack.enter_context(Cluster(tmp_path_factory.mktemp("slurm"), **options))

        yield start
