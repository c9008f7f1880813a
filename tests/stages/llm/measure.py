"""How fast the engine is, beside the library's own `generate`, in one process and in turns: medians and their ratio.

    python -m tests.stages.llm.measure [MODEL] [--draft DRAFT] [--streams 1 8 32]

Seconds are CPU seconds of the thread that computes (one thread), since other programs may be running.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from stages.llm.batch import Batch
from stages.llm.cache.blocks import BlockPool
from stages.llm.cache.kv import blocks_for
from stages.llm.guessing.speculation import Speculation
from stages.llm.models.model import LoadedModel, load_model
from stages.llm.pace import Pace
from stages.llm.rates import Rates
from stages.llm.sequence import Sequence
from stages.llm.timing import measure
from tests.stages.conftest import DEMO
from tests.stages.llm.running import make_prompt, some_ids

ROUNDS, PROMPT, ANSWER = 5, 100, 64


def timed(work: Callable[[], int]) -> float:
    """Tokens a CPU second of what `work` says it made."""
    began = time.thread_time()
    tokens = work()
    return tokens / (time.thread_time() - began)


def engine(
    model: LoadedModel, draft: LoadedModel | None, speculation: Speculation | None, prompts: list[list[int]]
) -> int:
    """Answer `prompts` in one batch; the tokens made."""
    batch = Batch(
        model,
        BlockPool(64 * blocks_for(PROMPT + ANSWER), model.kv, draft=draft.kv if draft else None, keep=False),
        most=64,
        queue=64,
        pace=Pace(),
        rates=Rates(64),
        speculation=speculation,
    )
    for number, ids in enumerate(prompts):
        prompt = make_prompt(ids, session=str(number), max_output_tokens=ANSWER)
        batch.add(Sequence(number, prompt, model.vocabulary, context=model.context))
    tokens = 0
    while not batch.idle:
        tokens += sum(len(run.ids) for _, run in batch.step() if not isinstance(run, Exception))
    return tokens


def library(network: torch.nn.Module, eos: frozenset[int], prompts: list[list[int]]) -> int:
    """Answer `prompts`, all of one length, with `generate`; the tokens made."""
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        out = network.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=ANSWER, do_sample=False, pad_token_id=0
        )[:, PROMPT:]
    ends = torch.isin(out, torch.tensor(sorted(eos))).long().cumsum(1)
    return int((ends == 0).sum())


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(DEMO))
    parser.add_argument("--draft")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model, device="cpu")
    draft = load_model(options.draft, device="cpu") if options.draft else None
    speculation = Speculation(model, draft) if draft else None
    if speculation:
        speculation.prepare(measure(model))
    network = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    size = network.config.vocab_size
    for streams in options.streams:
        prompts = [some_ids(PROMPT, n, size) for n in range(streams)]
        ways: dict[str, Callable[[], int]] = {
            "engine": lambda: engine(model, None, None, prompts),  # noqa: B023 - called before the next round
            "generate": lambda: library(network, model.eos, prompts),  # noqa: B023
        }
        if speculation:
            ways["engine, guessing"] = lambda: engine(model, draft, speculation, prompts)  # noqa: B023
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(timed(way))
        tell(streams, rates)


def tell(streams: int, rates: dict[str, list[float]]) -> None:
    """Print the medians, their spread, and how many times `generate` each is."""
    console = Console(highlight=False, soft_wrap=True)
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["generate"], strict=True))
        console.print(
            f"{streams:3} streams  {name:18} {statistics.median(values):7.0f} tokens/s "
            f"({min(values):.0f} to {max(values):.0f}, n = {len(values)})  {ratio:.2f} x generate"
        )


if __name__ == "__main__":
    main()
