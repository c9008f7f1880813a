"""The whole measurement on models of a few thousand weights: all say the same, and all of it is told."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from apps.bench import llm, llm_large, llm_prompts
from apps.bench.llm import CURE, Pair, Plan
from apps.bench.llm_large import Shape, cycle, large_pair, mistaken
from apps.bench.llm_prompts import KINDS, demo_prompts, standard_prompts
from apps.bench.llm_report import ASSISTED, CONTINUOUS, DRAFT, GENERATE, LOOKUP, OFF
from apps.parts import BUNDLED
from pipeline.errors import SettingsError
from stages.tokens import load_tokenizer

SMALL = Shape(hidden=64, layers=1, inner=64)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two small models whose draft is right after half of the tokens."""
    monkeypatch.setattr(llm_large, "cache_folder", lambda: tmp_path / "cache")
    return large_pair(BUNDLED / "target", 0.5, target=SMALL, draft=SMALL, vocabulary=3072)


@pytest.mark.slow
def test_all_say_the_same_and_it_is_told(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32 every contestant's answers are ours, token for token; what could not be measured is said."""
    monkeypatch.setattr(llm, "pair_of", lambda name: Pair(name, *pair, "small"))
    monkeypatch.setattr(llm, "installed", lambda: False)
    monkeypatch.setattr(llm, "LEAST_PROMPTS", 2)
    threads = torch.get_num_threads()
    plan = Plan(widths=(2,), rounds=1, tokens=8, threads=1, dtype="float32", pairs=("large",))
    llm.llm(plan, path=tmp_path / "llm.json", svg=tmp_path / "llm.svg")
    told = json.loads((tmp_path / "llm.json").read_text())
    (width,) = told["pairs"][0]["widths"]
    assert {OFF, DRAFT, GENERATE, ASSISTED, LOOKUP, CONTINUOUS} <= set(width["contestants"])
    for name, one in width["contestants"].items():
        assert (one["equal"], one["answers"]) == (2, 2), name
        assert one["first"]["n"] == 2
    assert 0 < width["contestants"][ASSISTED]["acceptance"] < 1
    assert (told["missing"], torch.get_num_threads()) == (["llama.cpp"], threads)
    assert CURE in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "llm.svg").read_text().count("<polyline") == len(width["contestants"])


def test_the_large_pair_is_made_once(pair: tuple[Path, Path]) -> None:
    """What is there is taken; another share of agreement is another pair."""
    date = (pair[0] / "config.json").stat().st_mtime_ns
    assert large_pair(BUNDLED / "target", 0.5, target=SMALL, draft=SMALL, vocabulary=3072) == pair
    assert (pair[0] / "config.json").stat().st_mtime_ns == date


def test_a_draft_is_right_after_the_share_that_was_chosen() -> None:
    """And an answer goes through the whole vocabulary before it repeats itself."""
    chance = torch.Generator().manual_seed(1)
    follows = cycle(1000, chance)
    assert int((mistaken(follows, 0.8, chance) == follows).sum()) == 800
    token, seen = 0, set()
    for _ in range(1000):
        token = int(follows[token])
        seen.add(token)
    assert len(seen) == 1000


def test_prompts_that_cannot_be_are_no_endless_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers leave no room for a prompt, or none is so long, that is said and not looked for for ever."""
    monkeypatch.setattr(llm_prompts, "MISSES", 20)
    tokenizer = load_tokenizer(BUNDLED / "target")

    for prompts in (
        standard_prompts(tokenizer, longest=5, seed=3),
        demo_prompts(tokenizer, tokens=1000, longest=200, seed=3),
        demo_prompts(tokenizer, tokens=2, longest=-1, seed=3),
    ):
        with pytest.raises(SettingsError, match="--tokens"):
            next(prompts)


@pytest.mark.slow
def test_threads_are_as_before_also_after_a_failure(pair: tuple[Path, Path]) -> None:
    """What goes wrong in a measurement leaves the process as it was."""
    before = torch.get_num_threads()
    plan = Plan(widths=(1,), tokens=10**6, threads=before + 1, dtype="float32", pairs=("large",))

    with pytest.raises(SettingsError):
        list(llm.measured(Pair("large", *pair, ""), plan, lambda: None))

    assert torch.get_num_threads() == before


def test_prompts_are_the_same_each_time_and_all_different() -> None:
    """Same seed, same prompts; of all seven kinds, none twice, none longer than it may be."""
    tokenizer = load_tokenizer(BUNDLED / "target")
    for first, second in (
        [list(islice(standard_prompts(tokenizer, longest=1200, seed=3), 3 * len(KINDS))) for _ in range(2)],
        [list(islice(demo_prompts(tokenizer, tokens=24, longest=200, seed=3), 10)) for _ in range(2)],
    ):
        assert first == second
        assert len(set(first)) == len(first)
        assert max(map(len, first)) <= 1200
