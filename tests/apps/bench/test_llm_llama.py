"""llama.cpp on our weights, where it is installed: the same tokens, alone and in a batch, guessed or not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apps.bench.llm import installed
from apps.bench.llm_contest import tokens_of
from apps.bench.llm_gguf import write_gguf

pytestmark = pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed (pip install '.[bench]')")

PROMPTS = ((1, 2, 3), (4, 5, 6, 7, 8, 9, 10), (11,))
TOKENS = 12


@pytest.fixture(scope="module")
def network() -> Any:
    """A small Llama with random weights."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=None,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def test_llama_cpp_says_what_transformers_says(network: Any, tmp_path: Path) -> None:
    """In float32 the greedy tokens are equal, so the file holds our weights as llama.cpp reads them."""
    from apps.bench.llm_llama import llama_contestants

    network.save_pretrained(tmp_path / "model")
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path / "model", path, "F32")
    expected = [said(network, prompt) for prompt in PROMPTS]
    for contestant in llama_contestants(path, path, streams=len(PROMPTS), context=64, threads=1):
        try:
            answers = contestant.answer(PROMPTS, TOKENS)
            assert [tokens_of(answer) for answer in answers] == expected, contestant.name
            assert all(0 < chunk.at <= then.at for answer in answers for chunk, then in pairwise(answer))
        finally:
            contestant.close()


def test_the_draft_is_let_go_too(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model that was loaded is closed: a measurement of many widths loads them again and again."""
    from apps.bench import llm_llama

    network.save_pretrained(tmp_path / "model")
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path / "model", path, "F32")
    loaded: list[Any] = []
    load = llm_llama._llama

    def remembered(*of: Any, **more: Any) -> Any:
        loaded.append(load(*of, **more))
        return loaded[-1]

    monkeypatch.setattr(llm_llama, "_llama", remembered)

    for contestant in llm_llama.llama_contestants(path, path, streams=1, context=64, threads=1):
        contestant.close()

    assert len(loaded) == 3
    assert all(one._model.model is None for one in loaded)


def said(network: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """The likeliest tokens one by one, without any cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(TOKENS):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])
