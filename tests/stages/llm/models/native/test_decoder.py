"""The compiled steps say what the library says, whatever they were compiled for, and stand aside where they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.llm.models.model import DType, LoadedModel, load_model
from stages.llm.models.native import decoder, library
from stages.llm.models.steps import Place
from tests.stages import models
from tests.stages.conftest import DEMO
from tests.stages.llm.models.test_slim import NEAR, VARIANTS, last_logits
from tests.stages.llm.test_same_bits import alone

pytestmark = [
    pytest.mark.slow,  # all of them together: every kind of model, and a compiler
    pytest.mark.skipif(library.library() is None, reason="there is no C++ compiler"),
]

WITHOUT = ("llama with biases",)
"""Variants with biases in the MLP, which are left to torch."""


def is_native(model: LoadedModel) -> bool:
    """Whether compiled steps are in use."""
    return isinstance(model.steps, decoder.NativeSteps)


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As if nothing had been compiled yet; the folder where it goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.library.cache_clear()
    yield tmp_path / "cache" / "penstock" / "native"
    library.library.cache_clear()


@pytest.mark.filterwarnings("ignore")  # the library's own, of rope
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in WITHOUT])
def test_it_says_what_the_library_says(name: str, dtype: DType, tmp_path: Path) -> None:
    """The logits are near those of the library's forward pass with the same weights."""
    kind, changes = VARIANTS[name]
    folder = models.save(tmp_path, kind, **{"initializer_range": 0.1, **changes})
    own = load_model(folder, device="cpu", dtype=dtype)
    expected = last_logits(load_model(folder, device="cpu", dtype=dtype, forward="library"))

    assert is_native(own)
    assert (last_logits(own) - expected).abs().max() <= NEAR[dtype] * expected.abs().max()


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 32, "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 513},
        {"head_dim": 80, "num_attention_heads": 2, "hidden_size": 48, "intermediate_size": 32},
        {"head_dim": 128, "hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3},
        {"head_dim": 256, "num_attention_heads": 1, "num_key_value_heads": 1},
    ],
    ids=["wide fold", "odd panels", "three heads", "longest head"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_do_not_matter(changes: dict[str, Any], dtype: DType, tmp_path: Path) -> None:
    """Numbers of outputs that fill no panel, and heads that fill no vectors of queries, are right, too."""
    folder = models.save(tmp_path, **{"initializer_range": 0.1, **changes})
    own = load_model(folder, device="cpu", dtype=dtype)
    expected = last_logits(load_model(folder, device="cpu", dtype=dtype, forward="library"))

    assert is_native(own)
    assert (last_logits(own) - expected).abs().max() <= NEAR[dtype] * expected.abs().max()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"hidden_size": 48}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"intermediate_size": 80}),
        ("gpt2", {}),
    ],
    ids=["heads of 12", "biases", "gates", "another kind"],
)
def test_what_it_does_not_know_is_left_to_torch(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Such a model is computed call by call, and rightly."""
    folder = models.save(tmp_path, kind, **{"initializer_range": 0.1, **changes})
    model = load_model(folder, device="cpu")
    expected = last_logits(load_model(folder, device="cpu", forward="library"))

    assert model.steps is None
    assert torch.allclose(last_logits(model), expected, atol=1e-3)


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="the demo model is not built")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["target", "draft"])
def test_the_demo_models_are_computed_by_it(name: str, dtype: DType) -> None:
    """Both models that we ship."""
    assert is_native(load_model(DEMO.parent / name, device="cpu", dtype=dtype))


@pytest.mark.parametrize("flags", [(), ("-march=x86-64-v3",)], ids=["any", "AVX2"])
def test_other_processors_get_it_right(
    flags: tuple[str, ...], tmp_path: Path, anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the vector instructions of this machine, and without threads, it says the same."""
    monkeypatch.setattr(library, "TUNED", (flags, ()))
    folder = models.save(tmp_path, initializer_range=0.1)
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        own = load_model(folder, device="cpu", dtype=dtype)
        expected = last_logits(load_model(folder, device="cpu", dtype=dtype, forward="library"))

        assert is_native(own)
        assert (last_logits(own) - expected).abs().max() <= NEAR[dtype] * expected.abs().max()


def test_it_is_compiled_once(anew: Path) -> None:
    """The next process finds it; nobody else can change it."""
    assert library.library() is not None
    (built,) = anew.iterdir()
    written = built.stat().st_mtime_ns
    library.library.cache_clear()

    assert library.library() is not None
    assert [built.stat().st_mtime_ns for built in anew.iterdir()] == [written]
    assert anew.stat().st_mode & 0o077 == 0


def test_who_can_keep_nothing_compiles_each_time(anew: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works, and no file is left behind, neither beside the program nor among the passing ones."""
    monkeypatch.setattr(library, "user_cache", lambda name: None)
    monkeypatch.setattr(library.tempfile, "tempdir", str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)

    assert library.library() is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compiler", ["false", "/nowhere/c++"])
def test_without_a_compiler_torch_computes(
    compiler: str, tmp_path: Path, anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is slower and as right; the log says why and what would help."""
    caplog.set_level("INFO")
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(library.shutil, "which", lambda name: name if name == "false" else None)  # type: ignore[attr-defined]

    model = load_model(models.save(tmp_path), device="cpu")

    assert model.steps is None
    assert "computed by torch" in caplog.text


def test_it_stands_aside_where_it_errs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If it says anything else than the library at load, torch computes, and the log says so."""
    folder = models.save(tmp_path)
    expected = last_logits(load_model(folder, device="cpu", forward="torch"))
    right = decoder._turns
    monkeypatch.setattr(decoder, "_turns", lambda rotary, context: right(rotary, context).flip(1))

    model = load_model(folder, device="cpu")

    assert model.steps is None
    assert "is computed in a slower way" in caplog.text
    assert torch.equal(last_logits(model), expected)


def test_what_lies_beyond_is_told(tmp_path: Path) -> None:
    """Nothing is read or written outside of the model and of the blocks, whatever a step says."""
    steps = load_model(models.save(tmp_path), device="cpu", context=100).steps
    assert steps is not None
    store = torch.zeros(2, 2, 2, 2, 64, 16)
    wrong: dict[str, tuple[list[int], list[int], Place]] = {
        "an id": ([512], [0], Place(0, 1, 0, [0])),
        "a choice": ([1], [1], Place(0, 1, 0, [0])),
        "a sequence beyond": ([1], [0], Place(0, 2, 0, [0])),
        "a position": ([1], [0], Place(0, 1, 100, [0, 1])),
        "too few": ([1], [0], Place(0, 1, 64, [0])),
        "a block": ([1], [0], Place(0, 1, 0, [2])),
    }
    for words, (ids, wanted, place) in wrong.items():
        with pytest.raises(IndexError, match=words):
            steps(ids, wanted, [place], store)
    assert not store.any()


def test_several_threads_may_use_a_model(tmp_path: Path) -> None:
    """Each has memory of its own for what it computes."""
    model = load_model(models.save(tmp_path), device="cpu")
    lengths = (3, 400, 65, 200)
    expected = [alone(model, length) for length in lengths]
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda length: alone(model, length), lengths * 5, timeout=30))

    assert all(torch.equal(one, expected[number % 4]) for number, one in enumerate(got))


def test_memory_that_was_used_does_not_matter(tmp_path: Path) -> None:
    """A small step after a large one, and a large one after small ones, say what they say alone."""
    model = load_model(models.save(tmp_path), device="cpu")
    first = [alone(model, length) for length in (3, 200, 3, 400)]

    assert torch.equal(first[0], first[2])
    assert torch.equal(alone(model, 400), first[3])
