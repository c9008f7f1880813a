from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from stages.llm.models.model import LoadedModel, load_model
from tests.stages import models

DEMO = Path(__file__).parents[2] / "apps" / "demo" / "models" / "target"


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """No progress bars between the dots."""
    transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def byte_level() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer with a chat template."""
    return models.byte_level()


@pytest.fixture(scope="session")
def sentencepiece() -> PreTrainedTokenizerBase:
    """A tokenizer in the manner of Llama 2."""
    return models.sentencepiece()


@pytest.fixture(scope="session")
def word_piece() -> PreTrainedTokenizerBase:
    """A tokenizer in the manner of BERT."""
    return models.word_piece()


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    """Load a tiny random model of some kind, once in a session."""
    loaded: dict[str, LoadedModel] = {}

    def get(kind: str) -> LoadedModel:
        if kind not in loaded:
            loaded[kind] = load_model(models.save(tmp_path_factory.mktemp(kind), kind), device="cpu")
        return loaded[kind]

    return get


@pytest.fixture
def model(load: Callable[[str], LoadedModel]) -> LoadedModel:
    """A tiny random Llama."""
    return load("llama")
