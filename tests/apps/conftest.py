"""Fixtures for the programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.parts import BUNDLED


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny random model that no end token stops early."""
    from tests.stages import models

    return models.save(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Give the folder of the bundled demo model."""
    folder = BUNDLED / "target"
    if not folder.is_dir():
        pytest.fail(f"the bundled demo model is missing: {folder}", pytrace=False)
    return folder
