"""Contrast in parts of a batch, as devices that keep to their own clips compute it."""

import numpy as np
import pytest

from tfavmae.objectives.contrastive import InterModalContrast, info_nce

RNG = np.random.default_rng(0)


def test_parts_are_compared_by_themselves():
    query, key = RNG.normal(size=(2, 6, 4)).astype("float32")
    valid = np.array([1, 1, 0, 1, 1, 1], "float32")
    objective = InterModalContrast(temperature=0.2)
    objective.num_parts = 2
    loss, hits = objective.direction(query, key, valid)
    parts = [
        info_nce(query[rows], key[rows], valid[rows], 0.2)
        for rows in (slice(0, 3), slice(3, 6))
    ]
    each = np.concatenate([np.asarray(losses) for losses, _ in parts])
    near = np.concatenate([np.asarray(nearest) for _, nearest in parts])
    assert float(loss) == pytest.approx((each * valid).sum(), rel=1e-6)
    assert float(hits) == (near * valid).sum()
    objective.num_parts = 1
    assert float(objective.direction(query, key, valid)[0]) > float(loss)
