"""Train the demo models: `python -m apps.demo.train --stage target`, then `--stage draft`.

The learning rate follows the wall clock, so `--minutes` is what it takes on any machine. The
state is saved every two minutes; `--resume` goes on from it. The draft learns from the target.

The shipped target was trained on one core, and resumed many times while the grammar was improved;
for the last run its vocabulary was widened from 2,048 to 3,072 words, the new rows beginning near the
mean of their letters. A run from the start needs no stops. What it took stands in `training.json`
beside the weights. Found on the way: with batches of 4,096 tokens, Muon at .02 stands still (loss
.15), and falls by a third as soon as the rate is halved; a further run of under half an hour loses
more by its raised rate than it wins. With phrasings from templates alone the loss is near zero in
the end, and what fails is wordings that they do not know: hence `written/`, and the dropout.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from apps.demo import tokenizer
from apps.demo.batches import Batch, Recipe, Stream, messages
from apps.demo.model import SHAPES, Llama, load, save, size
from apps.demo.muon import Muon
from apps.demo.phrases import values
from apps.demo.tokenizer import Encoder

MODELS = Path(__file__).with_name("models")
WARM_UP_STEPS = 60
FLAT = {"target": 0.4, "draft": 0.0}
AFTER = 0.5
SAVE_EVERY = 120.0
LOG_EVERY = 20.0
KL_SHARE = 0.7

Loss = Callable[[Tensor, Batch], Tensor]


class Stage(StrEnum):
    """Which of the two models."""

    TARGET = "target"
    DRAFT = "draft"


@dataclass
class Ledger:
    """What the training has used so far."""

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    device: str = ""
    threads: int = 0
    parameters: int = 0

    def __str__(self) -> str:
        return f"{self.seconds:6.0f} s, {self.steps} steps, {self.tokens / 1e6:.2f} M tokens"


class Trainer:
    """A model, its optimisers and its ledger, which are saved and restored together."""

    def __init__(self, model: Llama, device: torch.device) -> None:
        self.model = model.to(device)
        inner = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
        others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
        self.muon = Muon(inner)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
        self.device = device
        self.ledger = Ledger(device=device.type, threads=torch.get_num_threads(), parameters=size(model))

    def step(self, batch: Batch, loss: Loss, rate: float) -> Tensor:
        """One update; `rate` goes from 1 to 0."""
        batch = Batch(batch.ids.to(self.device), batch.spoken.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = self.model(batch.ids[:, :-1])[batch.spoken[:, 1:]]
            value = loss(self.model.head(hidden).float(), batch)
        value.backward()
        self.muon.step(0.02 * rate)
        for group in self.adam.param_groups:
            group["lr"] = 3e-3 * rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.ledger.steps += 1
        self.ledger.tokens += batch.ids.numel()
        return value.detach()

    def store(self, path: Path) -> None:
        """Save everything, in one move."""
        state = {
            "model": self.model.state_dict(),
            "muon": self.muon.state,
            "adam": self.adam.state_dict(),
            "ledger": asdict(self.ledger),
            "random": torch.get_rng_state(),
        }
        fresh = path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(path)

    def restore(self, path: Path) -> None:
        """Go on where `store` stopped."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.state = state["muon"]
        self.adam.load_state_dict(state["adam"])
        self.ledger = Ledger(**state["ledger"])
        torch.set_rng_state(state["random"].cpu())


def rate(progress: float, step: int, flat: float) -> float:
    """Warm up by steps, stay flat for a while, then fall in a line from half of that to nothing."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (1.0 if progress < flat else AFTER * max(0.0, (1 - progress) / (1 - flat)))


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Only what the assistant says counts."""
    return F.cross_entropy(logits, batch.ids[:, 1:][batch.spoken[:, 1:]])


def distillation(teacher: Llama, device: torch.device) -> Loss:
    """Mostly the target's distribution, a little the text itself."""
    teacher = teacher.to(device).eval()

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = teacher.head(teacher(batch.ids[:, :-1])[batch.spoken[:, 1:]]).float().log_softmax(-1)
        divergence = F.kl_div(logits.log_softmax(-1), wanted, log_target=True, reduction="batchmean")
        return KL_SHARE * divergence + (1 - KL_SHARE) * cross_entropy(logits, batch)

    return loss


def make_tokenizer(folder: Path) -> None:
    """Choose the words from what the grammar says, names left out so that they are spelled."""
    rng = random.Random(0)
    how = Recipe(noise=0.3, spell=0.0, copying=0.0)
    texts = [
        f" {message['content']}" if message["role"] != "assistant" else message["content"]
        for _ in range(40_000)
        for message in messages(rng, how)
    ]
    tokenizer.save(tokenizer.vocabulary(texts, frozenset(values("names"))), folder)


class Every:
    """Is due once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Has the time passed since it was last due?"""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class Plan(NamedTuple):
    """How long to train in all, and for what share of it at the full rate.

    With `again`, a resumed run falls in a line from that share of the full rate to nothing.
    """

    seconds: float
    flat: float
    again: float = 0.0

    def rate(self, ledger: Ledger, resumed: tuple[float, int]) -> float:
        """The learning rate's share at `ledger`, in a run that began with `resumed` seconds and steps."""
        if not self.again:
            return rate(ledger.seconds / self.seconds, ledger.steps, self.flat)
        left = (self.seconds - ledger.seconds) / (self.seconds - resumed[0])
        return min(1.0, (ledger.steps - resumed[1] + 1) / WARM_UP_STEPS) * self.again * max(0.0, left)


def run(trainer: Trainer, stream: Stream, loss: Loss, plan: Plan, keep: Callable[[], None], console: Console) -> None:
    """Train until the time is up; `keep` saves what there is."""
    before, start = (trainer.ledger.seconds, trainer.ledger.steps), time.monotonic()
    saving, logging = Every(SAVE_EVERY), Every(LOG_EVERY)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=plan.seconds)
        for batch in stream:
            trainer.ledger.seconds = before[0] + time.monotonic() - start
            stream.progress = trainer.ledger.seconds / plan.seconds
            if stream.progress >= 1:
                break
            value = trainer.step(batch, loss, plan.rate(trainer.ledger, before))
            bar.update(task, completed=trainer.ledger.seconds)
            if logging.due():
                line = f"{trainer.ledger}, loss {value.item():.4f}"
                bar.update(task, description=line)
                if not console.is_terminal:
                    console.print(line)
            if saving.due():
                keep()
    keep()


def main(
    stage: Annotated[Stage, typer.Option()],
    minutes: Annotated[float, typer.Option(help="Wall clock, all resumed runs together.")] = 90.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(help="Torch threads; one is fastest beside other work.")] = 1,
    work: Annotated[Path, typer.Option(help="Where checkpoints are kept.")] = Path("build/demo"),
    models: Annotated[Path, typer.Option(help="Where the finished models go.")] = MODELS,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    again: Annotated[float, typer.Option(help="A resumed run's rate: from this share down to nothing.")] = 0.0,
    compiled: Annotated[bool, typer.Option("--compile", help="A quarter faster after a minute or two.")] = False,
) -> None:
    """Train one of the two demo models."""
    console = Console()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    work.mkdir(parents=True, exist_ok=True)
    where = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    )
    folder, checkpoint = models / stage.value, work / f"{stage.value}.pt"
    trainer = Trainer(Llama(SHAPES[stage.value]), where)
    if compiled:
        for layer in trainer.model.layers:
            layer.compile(dynamic=True)
    if resume:
        trainer.restore(checkpoint)
    elif stage is Stage.TARGET:
        make_tokenizer(folder)
    console.print(
        f"{stage.value}: {trainer.ledger.parameters:,} parameters, "
        f"{minutes:g} minutes on {where.type}, {threads} thread(s)"
    )
    target = models / Stage.TARGET.value
    encoder = Encoder.load(target)
    if stage is Stage.DRAFT:
        tokenizer.save(encoder.vocab, folder)
        loss = distillation(load(target, SHAPES["target"]), where)
    else:
        loss = cross_entropy

    def keep() -> None:
        trainer.store(checkpoint)
        save(trainer.model, folder)
        (folder / "training.json").write_text(json.dumps(asdict(trainer.ledger), indent=2) + "\n")

    stream = Stream(encoder, seed=1 + trainer.ledger.steps)
    run(trainer, stream, loss, Plan(minutes * 60, FLAT[stage.value], again), keep, console)


if __name__ == "__main__":
    typer.run(main)
