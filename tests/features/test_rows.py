from __future__ import annotations

import numpy as np
import pytest

from tests.features.samples import feature_rows
from tsp_core.config import ClipConfig
from tsp_core.features.rows import features_from_table, nominal_centers, table_from_features


def test_a_row_is_at_the_centre_of_its_clip() -> None:
    rows = feature_rows("a", 3)
    np.testing.assert_allclose(rows.centers_seconds, [8 / 15, 24 / 15, 40 / 15])
    np.testing.assert_allclose(rows.centers_seconds, nominal_centers(3, ClipConfig(), 16))


def test_dense_rows_start_half_a_clip_in() -> None:
    centers = nominal_centers(3, ClipConfig(length=8, frame_rate=10), stride=1)
    np.testing.assert_allclose(centers, [0.4, 0.5, 0.6])


@pytest.mark.parametrize("num_rows", [1, 5])
def test_a_table_gives_the_rows_back(num_rows: int) -> None:
    rows = feature_rows("a", num_rows)
    table = table_from_features(rows)
    back = features_from_table(table)
    assert (back.video, back.content_hash) == ("a", "hash-a")
    np.testing.assert_array_equal(back.features, rows.features)
    np.testing.assert_array_equal(back.starts_seconds, rows.starts_seconds)
    np.testing.assert_array_equal(back.ends_seconds, rows.ends_seconds)
    np.testing.assert_array_equal(back.is_padded, rows.is_padded)
    assert table["clip_index"].to_pylist() == list(range(num_rows))
    assert set(table["status"].to_pylist()) == {"ok"}
