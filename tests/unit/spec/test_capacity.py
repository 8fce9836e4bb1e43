"""`target_capacity` scales numbers of replicas, and can be taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.spec.application import ApplicationSpec, DeploymentOptions, DeploymentSpec
from trygon.spec.capacity import at_capacity, scaled


def _spec(*counts: int, external: bool = False) -> ApplicationSpec:
    return ApplicationSpec(
        ingress="d0",
        deployments=tuple(
            DeploymentSpec(
                name=f"d{index}",
                app_name="default",
                definition=b"",
                options=DeploymentOptions(num_replicas=count),
            )
            for index, count in enumerate(counts)
        ),
        external_scaler_enabled=external,
    )


def _counts(spec: ApplicationSpec) -> list[int]:
    return [deployment.options.num_replicas for deployment in spec.deployments]


@pytest.mark.parametrize(
    "count, capacity, expected",
    [
        (10, None, 10),
        (10, 100, 10),
        (10, 50, 5),
        (5, 50, 3),
        (10, 14, 1),
        (10, 16, 2),
        (1, 1, 1),
        (10, 0, 0),
        (0, 50, 0),
    ],
)
def test_a_count_is_rounded_half_up_and_one_replica_stays_but_at_zero(
    count: int, capacity: float | None, expected: int
) -> None:
    assert expected == scaled(count, capacity)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    st.lists(st.none() | st.floats(0, 100), max_size=4),
)
def test_whatever_percentages_came_before_only_the_last_counts(
    counts: list[int], capacities: list[float | None]
) -> None:
    spec = _spec(*counts)

    for capacity in capacities:
        spec = at_capacity(spec, capacity)

    last = capacities[-1] if capacities else None
    assert [scaled(count, last) for count in counts] == _counts(spec)
    assert counts == _counts(at_capacity(spec, None))


def test_numbers_that_another_program_sets_are_left_alone() -> None:
    assert [4, 2] == _counts(at_capacity(_spec(4, 2, external=True), 50))


def test_the_percentage_and_the_full_numbers_are_kept() -> None:
    found = at_capacity(_spec(4, 1), 50)

    assert 50 == found.target_capacity
    assert {"d0": 4} == found.full_replicas
