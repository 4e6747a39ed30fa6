"""What a cold start's figures are judged by."""

import pytest

from tests.bench.cold_start import TOGETHER, ColdStarts, compute_cold_start_marks


@pytest.mark.parametrize(
    ("found", "reached"),
    [
        pytest.param(ColdStarts("a", [90, 190, 900], [800, 900], TOGETHER, 400.0), [True] * 3, id="well"),
        pytest.param(ColdStarts("a", [201], [800], TOGETHER, 400.0), [False, True, True], id="slow parked"),
        pytest.param(ColdStarts("a", [90], [1600], TOGETHER, 400.0), [True, False, True], id="slow stopped"),
        pytest.param(ColdStarts("a", [90], [900], 199, 400.0), [True, True, False], id="one not answered"),
    ],
)
def test_marks(found, reached):
    """The median decides, and every request."""
    assert [mark.reached for mark in compute_cold_start_marks([found])] == reached
