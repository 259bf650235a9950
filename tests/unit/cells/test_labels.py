"""Labels of operating points."""

from __future__ import annotations

import pytest

from saebench.cells.labels import point_label


@pytest.mark.parametrize(
    ("sweep", "label"),
    [
        ({}, "default"),
        ({"k": 16}, "k16"),
        ({"k": 16, "degree": 7}, "k16-degree7"),
        ({"target_l0": 8}, "target_l0_8"),
        ({"l1": 0.001}, "l1_0.001"),
        ({"rate": 1e-5}, "rate1e-05"),
        ({"tilt": 2.0}, "tilt2"),
        ({"shift": -1}, "shift_-1"),
        ({"mode": "a b/c"}, "mode_a_b_c"),
        ({"flag": True}, "flag_true"),
        ({"clip": None}, "clip_none"),
        ({"pair": [1, 2.5]}, "pair1x2.5"),
    ],
)
def test_labels(sweep, label):
    assert point_label(sweep) == label
