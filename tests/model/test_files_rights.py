"""A weights file that may not be read says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.rights import without_rights
from tsp_core.errors import WeightsError
from tsp_core.model.weights import open_encoder


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tiny_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "closed" / "w.pth"
    path.parent.mkdir()
    torch.save(tiny_state, path)
    open_encoder(str(path))
    path.chmod(0)
    with without_rights(), pytest.raises(WeightsError, match="check owner and perm") as got:
        open_encoder(str(path))
    assert "damaged" not in str(got.value)
