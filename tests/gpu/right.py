"""Whether the engine is right on a device: the kernels, the answers, the bits, the graphs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.messages import Prompt
from stages.llm.engine import TorchEngine
from stages.llm.gpu.attention import has_kernels
from stages.llm.gpu.graphs import Call, Capture, CudaCapture
from stages.llm.gpu.steps import Steps
from stages.llm.models.model import DType, LoadedModel, load_model
from tests.gpu.report import Finding
from tests.stages import models
from tests.stages.llm.gpu.cases import CASES, Case
from tests.stages.llm.gpu.checks import TOLERANCE, see
from tests.stages.llm.gpu.stepping import Recorder, Text
from tests.stages.llm.running import answer, make_prompt, reference, some_ids

LARGER = {
    "like Llama 3 8B": Case(32, 8, 128, ((0, 300), (1500, 1), (4000, 5)), dtype=torch.bfloat16, scaling=0.088),
    "like Qwen2 7B": Case(28, 4, 128, ((700, 70), (2000, 1)), dtype=torch.float16, scaling=0.088),
    "like Gemma 2 9B": Case(16, 8, 256, ((4200, 1), (10, 90)), 0, torch.bfloat16, 4096, 50.0, 0.0625),
    "like Phi 2": Case(32, 32, 80, ((600, 1), (0, 200)), dtype=torch.bfloat16, scaling=0.11),
    "float32": Case(8, 2, 64, ((300, 5), (1000, 1), (0, 100)), dtype=torch.float32, scaling=0.125),
}
LENGTHS = (3, 31, 64, 65, 130, 200, 300)
STEPS = ({0: 70, 1: 3}, {0: 1, 1: 1}, {0: 1, 1: 1, 2: 60}, {0: 5, 1: 1, 2: 4}, {2: 1}, {0: 1, 1: 1, 3: 9})
"""New tokens of some sequences, step by step."""
NEAR = 1e-3
"""Two logits so far apart, of the largest one's size, may change places by rounding alone."""


def kernels(device: torch.device) -> Iterator[Finding]:
    """The kernels against arithmetic in float64, and their bits in any company."""
    if not has_kernels(device.type):
        yield Finding("kernels", "none on this device", None)
        return
    for name, case in {**CASES, **LARGER}.items():
        seen = see(case, device)
        right = seen.error < TOLERANCE[case.dtype] and seen.stored and seen.alone and seen.beside
        yield Finding(f"kernels: {name}", str(seen), right)


def model_on(device: torch.device, folder: Path, kind: str, dtype: DType = "float32") -> LoadedModel:
    """A tiny random model; where there is no GPU, its steps are computed as if there were one."""
    model = load_model(models.save(folder / f"{kind}-{dtype}", kind), device=str(device), dtype=dtype)
    return model if device.type == "cuda" else replace(model, steps=Steps(model.network, Recorder))


def answers(device: torch.device, folder: Path) -> Iterator[Finding]:
    """Greedy answers of the engine, its draft and its graphs, against `generate`, in float32."""
    kinds = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma2")
    for kind in kinds if device.type == "cuda" else kinds[:1]:
        model = model_on(device, folder, kind)
        prompts = [make_prompt(some_ids(n, n), session=str(n), max_output_tokens=24) for n in LENGTHS]
        got = asyncio.run(_answered(model, prompts))
        same = [ids == reference(model, prompt)[0] for ids, prompt in zip(got, prompts, strict=True)]
        yield Finding(f"answers like generate's: {kind}", f"{sum(same)} of {len(same)}", all(same))


async def _answered(model: LoadedModel, prompts: list[Prompt]) -> list[list[int]]:
    draft = replace(model, steps=None if model.steps is None else Steps(model.network, capture_for(model.device)))
    async with TorchEngine(model, draft=draft, most=4, kv_bytes=1 << 23) as engine:
        return [ids for ids, _, _ in await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))]


def capture_for(device: torch.device) -> Callable[[], Capture]:
    """What records graphs there, or stands for it."""
    return CudaCapture if device.type == "cuda" else Recorder


def company(device: torch.device, folder: Path) -> Iterator[Finding]:
    """How many logits change when prompts are cut and computed beside others: told, since products decide it, too."""
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    for dtype in dtypes:
        model = model_on(device, folder, "llama", dtype)
        assert isinstance(model.steps, Steps)
        alone = [_last(Text(model, model.steps, length=400), {number: 400}) for number in range(8)]
        together = _together(Text(model, model.steps, length=400), random.Random(0))
        rows = [torch.equal(one, other) for one, other in zip(alone, together, strict=True)]
        chosen = [int(one.argmax()) == int(other.argmax()) for one, other in zip(alone, together, strict=True)]
        close = [_is_near(one) for one in alone]
        largest = max(float((one - other).abs().max()) for one, other in zip(alone, together, strict=True))
        seen = (
            f"{sum(rows)} of {len(rows)} rows the same bits, largest difference {largest:.1e}, "
            f"{len(chosen) - sum(chosen)} other tokens, {sum(close)} near-ties"
        )
        right = all(same or near for same, near in zip(chosen, close, strict=True))
        yield Finding(f"company: {dtype}", seen, right)


def _last(text: Text, counts: dict[int, int]) -> Tensor:
    return text.step(counts)[0]


def _together(text: Text, drawn: random.Random) -> list[Tensor]:
    """The last logits of all sequences, computed in random pieces beside each other."""
    last: dict[int, Tensor] = {}
    while len(last) < len(text.ids):
        counts = {
            number: min(len(ids) - text.computed[number], drawn.choice((1, 2, 5, 17, 64, 90)))
            for number, ids in text.ids.items()
            if text.computed[number] < len(ids) and drawn.random() < 0.7
        }
        if counts:
            logits = dict(zip(counts, text.step(counts), strict=True))
            last |= {number: logits[number] for number in counts if text.computed[number] == len(text.ids[number])}
    return [last[number] for number in text.ids]


def _is_near(logits: Tensor) -> bool:
    first, second = logits.topk(2).values.tolist()
    return bool(first - second < NEAR * float(logits.abs().max()))


def graphs(device: torch.device, folder: Path) -> Iterator[Finding]:
    """Replayed steps against launched ones of the same numbers: the padding may change a product's bits, not more.

    All of them must have been replayed: a model that cannot be recorded is computed without a word to its caller.
    """
    kinds: dict[DType, float] = {"float32": 1e-4, "bfloat16": 5e-2}
    for dtype, tolerance in kinds.items():
        model = model_on(device, folder, "llama", dtype)
        launched = Text(model, Steps(model.network))
        counted = _Counted(capture_for(device))
        replayed = Text(model, Steps(model.network, counted))
        replayed.steps.record(replayed.store, model.context)
        same, largest = 0, 0.0
        for counts in STEPS:
            one, other = launched.step(counts), replayed.step(counts)
            same += torch.equal(one, other)
            largest = max(largest, float((one - other).abs().max() / one.abs().max()))
        seen = (
            f"{counted.replays} of {len(STEPS)} steps replayed, {same} the same bits, "
            f"largest relative difference {largest:.1e}"
        )
        yield Finding(f"graphs: {dtype}", seen, counted.replays == len(STEPS) and largest < tolerance)


class _Counted:
    """Makes what `make` makes, which records calls, and counts how often they are replayed."""

    def __init__(self, make: Callable[[], Capture]) -> None:
        self._make = make
        self.replays = 0

    def __call__(self) -> Capture:
        capture = self._make()

        def record(call: Call) -> Call:
            replay = capture(call)

            def counted() -> None:
                self.replays += 1
                replay()

            return counted

        return record
