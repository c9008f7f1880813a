"""How fast the engine is on a device: a step beside what its memory allows, the gaps between launches, the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.llm.cache.kv import BLOCK
from stages.llm.gpu import plain
from stages.llm.gpu.attention import has_kernels
from stages.llm.gpu.steps import Steps
from stages.llm.models.model import DType, LoadedModel, load_model
from tests.gpu.report import Finding, bandwidth, timed, wait
from tests.gpu.right import capture_for
from tests.stages import models
from tests.stages.llm.gpu.cases import Case, Setting, setting
from tests.stages.llm.gpu.stepping import Text

AIM = 0.6
"""Share of the memory's bandwidth that a single stream must reach; after that comes 0.8."""


@dataclass(frozen=True)
class Scale:
    """How large the checks are: a model's shape, the bytes that are copied, positions computed before."""

    shape: dict[str, Any]
    dtype: DType
    copied: int
    past: int
    streams: tuple[int, ...]


REAL = Scale(
    {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "initializer_range": 0.02,
    },
    "bfloat16",
    4 << 30,
    1000,
    (1, 4, 16, 64),
)
"""The shape of Llama 3.2 1B: 2.5 GB in bfloat16."""

REHEARSAL = Scale({}, "float32", 1 << 20, 20, (1, 2))


def steps(device: torch.device, folder: Path, scale: Scale) -> Iterator[Finding]:
    """A step of some streams, launched and replayed, beside the time in which the memory gives what must be read."""
    model = load_model(models.save(folder / "speed", **scale.shape), device=str(device), dtype=scale.dtype)
    speed = bandwidth(device, scale.copied)
    yield Finding("memory", f"{speed / 1e9:.0f} GB/s, a copy of {scale.copied >> 20} MB")
    weights = sum(weight.nbytes for weight in model.network.parameters())
    for streams in scale.streams:
        floor = (weights + streams * scale.past * model.kv.token_bytes) / speed
        for name, recorded in (("launched", False), ("replayed", True)):
            took = _step(model, streams, scale.past, recorded=recorded)
            right = floor / took >= AIM if recorded and streams == 1 and device.type == "cuda" else None
            seen = f"{took * 1e3:.3f} ms; the memory alone {floor * 1e3:.3f} ms, {floor / took:.0%} of it"
            yield Finding(f"step of {streams}, {name}", seen, right)
    yield from gaps(model, scale)


def _stepping(model: LoadedModel, streams: int, past: int, *, recorded: bool) -> Text:
    """Streams that have computed `past` tokens each, with room for more."""
    text = Text(model, Steps(model.network, capture_for(model.device)), count=streams, length=past + 4 * BLOCK)
    if recorded:
        text.steps.record(text.store, model.context)
    for number in range(streams):
        text.step({number: past})
    return text


def _step(model: LoadedModel, streams: int, past: int, *, recorded: bool) -> float:
    """Seconds of a step of one token for each, with the choice of the likeliest, as the engine takes it."""
    text = _stepping(model, streams, past, recorded=recorded)
    counts = dict.fromkeys(range(streams), 1)
    return timed(lambda: text.step(counts).argmax(-1).tolist(), model.device)


def gaps(model: LoadedModel, scale: Scale) -> Iterator[Finding]:
    """How much of a single stream's step the device has nothing to do, by torch's profiler."""
    on_gpu = model.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    shares = {}
    for name, recorded in (("launched", False), ("replayed", True)):
        text = _stepping(model, 1, scale.past, recorded=recorded)
        for _ in range(3):
            text.step({0: 1}).argmax(-1).tolist()
        wait(model.device)
        with torch.profiler.profile(activities=[activity]) as profile:
            for _ in range(10):
                text.step({0: 1}).argmax(-1).tolist()
            wait(model.device)
        work = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profile.events()
            if event.device_type.name == activity.name
        )
        done, span = busy(work)
        shares[recorded] = 1 - done / span
        yield Finding(f"gaps, {name}", f"{shares[recorded]:.0%} of the time, {len(work) // 10} operations a step")
    closed = shares[True] < shares[False] if on_gpu else None
    yield Finding("gaps are closed by graphs", f"{shares[False]:.0%} to {shares[True]:.0%}", closed)


def busy(work: list[tuple[float, float]]) -> tuple[float, float]:
    """The time in which something is done, of all the time from the first beginning on; `work` by its beginnings."""
    busy, until = 0.0, work[0][0]
    for begin, end in work:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy, until - work[0][0]


SHAPES = {
    "1 stream at 2,000": Case(32, 8, 128, ((2000, 1),), dtype=torch.bfloat16, scaling=0.088),
    "1 stream at 7,000": Case(32, 8, 128, ((7000, 1),), dtype=torch.bfloat16, scaling=0.088),
    "32 streams at 1,000": Case(32, 8, 128, ((1000, 1),) * 32, dtype=torch.bfloat16, scaling=0.088),
    "a prompt of 1,024": Case(32, 8, 128, ((0, 1024),), dtype=torch.bfloat16, scaling=0.088),
}


def attention(device: torch.device, scale: Scale) -> Iterator[Finding]:
    """The kernel, for each way to cut it, beside the time in which the memory gives the keys and values."""
    if not has_kernels(device.type):
        yield Finding("attention", "no kernels on this device")
        return
    speed = bandwidth(device, scale.copied)
    for name, case in SHAPES.items():
        given = setting(case, device)
        plain.write(given.store, given.keys, given.values, given.tables)
        read = sum(start + count for start, count in case.spans) * 2 * case.kv_heads * case.size * 2
        for rows, warps in ((16, 4), (32, 4), (64, 4), (64, 8)):
            took = _kernel(case, given, rows, warps)
            seen = f"{took * 1e6:.1f} µs, the memory alone {read / speed * 1e6:.1f} µs"
            yield Finding(f"attention, {name}, {rows} rows, {warps} warps", seen)


def _kernel(case: Case, given: Setting, rows: int, warps: int) -> float:
    """Seconds of the kernel in a graph, so that no launch is counted."""
    from stages.llm.gpu import launch

    shared, _ = launch.machine(given.query.device)
    cut = launch.tiling(case.heads // case.kv_heads, case.size, case.dtype, shared)
    cut = cut._replace(rows=max(rows, cut.fold), warps=warps)

    def call() -> None:
        launch.attend(given.query, given.store, given.tables, scaling=case.scaling, cut=cut)

    return timed(capture_for(given.query.device)()(call), given.query.device, each=20)
