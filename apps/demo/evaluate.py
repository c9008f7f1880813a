"""Check the demo models: `python -m apps.demo.evaluate`, and `--free` for the freely typed questions.

A reply is right if it is one of the right answers of that turn, letter for letter: facts, names and
numbers included. Only two things do not matter: a `Hello!` in front, and which of the friendly
refusals answers what is outside the shop (both are counted word for word as well). The test file
was frozen in the first minutes of the training, before any reply was seen; its phrasings and values
(names, order numbers, topics) are held out by hash. In dialogues the model sees its own replies.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import torch
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from apps.demo.grammar import dialogue
from apps.demo.phrases import NoPhrase, Split, load
from apps.demo.tokenizer import Message
from apps.demo.train import MODELS
from apps.demo.wording import Turn

FOLDER = Path(__file__).with_name("evaluation")
OUTSIDE = ("outside", "gibberish", "foreign", "other_product")
GAMMA = 4
LONGEST = 260
BATCH = 32
HELLO = "Hello! "
COUNTS = {"single": 300, "several": 120, "outside": 200, "echo": 150}

Dialogue = list[Turn]


def belongs(kind: str, made: Dialogue) -> bool:
    """Is `made` a dialogue of `kind`?"""
    match kind:
        case "several":
            return len(made) > 1
        case "outside":
            return len(made) == 1 and made[0].intent in OUTSIDE
        case "echo":
            return made[-1].echo
        case _:
            return len(made) == 1 and made[0].intent not in OUTSIDE


def dialogues(kind: str, count: int, seed: int) -> Iterator[Dialogue]:
    """`count` held-out dialogues of `kind`."""
    rng = random.Random(f"{kind} {seed}")
    turns = {"several": (2, 3, 4, 5, 6), "echo": (1, 1, 2, 3)}.get(kind, (1,))
    while count:
        try:
            made = list(dialogue(rng, Split.TEST, noise=0.5, turns=rng.choice(turns), copying=float(kind == "echo")))
        except NoPhrase:
            continue
        if belongs(kind, made):
            count -= 1
            yield made


def freeze(path: Path) -> None:
    """Write the test file, once and for all."""
    with path.open("w", encoding="utf-8") as file:
        for kind, count in COUNTS.items():
            for made in dialogues(kind, count, seed=2026):
                file.write(
                    json.dumps({"kind": kind, "turns": [asdict(turn) for turn in made]}, ensure_ascii=False) + "\n"
                )


def read(path: Path) -> Iterator[tuple[str, Dialogue]]:
    """What `freeze` wrote."""
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        yield item["kind"], [Turn(**turn | {"replies": tuple(turn["replies"])}) for turn in item["turns"]]


class Verdict(TypedDict):
    """A judgement by hand of one of the freely typed questions."""

    ok: bool
    why: str
    replies: list[str]


class Chat:
    """A shipped model, loaded with stock transformers, that answers greedily."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def replies(self, chats: Sequence[list[Message]]) -> list[str]:
        """The answer to the last message of each of `chats`."""
        found: list[str] = []
        for start in range(0, len(chats), BATCH):
            inputs = self.tokenizer.apply_chat_template(
                chats[start : start + BATCH],
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                padding=True,
            )
            with torch.inference_mode():
                made = self.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
            found += self.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found

    def go_on(self, ids: list[int], count: int) -> list[int]:
        """The next ids, at most `count`."""
        with torch.inference_mode():
            prompt = torch.tensor([ids])
            made = self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False
            )
        continued: list[int] = made[0, len(ids) :].tolist()
        return continued


def converse(chat: Chat, talks: Sequence[Sequence[str]], system: str = "") -> list[list[str]]:
    """Answer every turn of every one of `talks`; the model's own replies are its memory."""
    chats = [[Message(role="system", content=system)] if system else [] for _ in talks]
    said: list[list[str]] = [[] for _ in talks]
    for turn in range(max(map(len, talks))):
        going = [at for at, talk in enumerate(talks) if len(talk) > turn]
        for at in going:
            chats[at].append(Message(role="user", content=talks[at][turn]))
        for at, reply in zip(going, chat.replies([chats[at] for at in going]), strict=True):
            said[at].append(reply)
            chats[at].append(Message(role="assistant", content=reply))
    return said


class Mark(NamedTuple):
    """One turn and what was answered."""

    kind: str
    turn: Turn
    reply: str

    @property
    def same(self) -> bool:
        """Is it one of the right answers, word for word?"""
        return self.reply in self.turn.replies

    @property
    def right(self) -> bool:
        """Is it right, whatever the greeting and the kind of refusal?"""
        wanted = {*self.turn.replies, *(refusals() if self.turn.intent in OUTSIDE else ())}
        return self.reply.removeprefix(HELLO) in {reply.removeprefix(HELLO) for reply in wanted}


@cache
def refusals() -> frozenset[str]:
    """The friendly ways to say that a question is not the shop's."""
    intents = load("outside").intents
    return frozenset((*intents["outside"].replies, *intents["gibberish"].replies))


def check(chat: Chat, path: Path) -> list[Mark]:
    """Mark every turn of the test file."""
    kinds, made = zip(*read(path), strict=True)
    said = converse(chat, [[turn.user for turn in turns] for turns in made])
    return [
        Mark(kind, turn, reply)
        for kind, turns, replies in zip(kinds, made, said, strict=True)
        for turn, reply in zip(turns, replies, strict=True)
        if kind != "echo" or turn.echo
    ]


def shares(marks: Sequence[Mark], attribute: Literal["right", "same"] = "right") -> dict[str, float]:
    """Percent right of each kind."""
    sums: dict[str, list[bool]] = defaultdict(list)
    for mark in marks:
        sums[mark.kind].append(getattr(mark, attribute))
        sums["all"].append(getattr(mark, attribute))
    return {kind: round(100 * sum(rights) / len(rights), 1) for kind, rights in sums.items()}


def acceptance(target: Chat, draft: Chat, path: Path, count: int = 80) -> dict[str, float]:
    """How much of what the draft proposes greedily the target would have said."""
    proposed = accepted = steps = tokens = 0
    for _, turns in list(read(path))[::7][:count]:
        ids: list[int] = target.tokenizer.apply_chat_template(
            [{"role": "user", "content": turns[0].user}], add_generation_prompt=True, return_dict=False
        )
        reply, at = target.go_on(ids, LONGEST), 0
        while at < len(reply):
            guess = draft.go_on(ids + reply[:at], GAMMA)
            same = next(
                (n for n, (a, b) in enumerate(zip(guess, reply[at:], strict=False)) if a != b),
                min(len(guess), len(reply) - at),
            )
            proposed, accepted, steps = proposed + len(guess), accepted + same, steps + 1
            tokens += min(same + 1, len(reply) - at)
            at += same + 1
    return {"gamma": GAMMA, "accepted": round(accepted / proposed, 3), "tokens_per_step": round(tokens / steps, 2)}


def table(marks: Sequence[Mark], console: Console, wrong: int) -> None:
    """Print the shares, the weakest intents and some wrong answers."""
    console.print(shares(marks))
    intents: dict[str, list[bool]] = defaultdict(list)
    for mark in marks:
        intents[mark.turn.intent].append(mark.right)
    weak = sorted((sum(r) / len(r), len(r), name) for name, r in intents.items())
    console.print("weakest:", [(name, f"{share:.0%} of {n}") for share, n, name in weak if share < 0.9])
    for mark in [mark for mark in marks if not mark.right][:wrong]:
        console.print(
            f"[{mark.kind}/{mark.turn.intent}] {mark.turn.user!r}\n    {mark.reply!r}\n    {mark.turn.replies[0]!r}",
            markup=False,
        )


def judged(verdicts: Sequence[Verdict], at: int, replies: Sequence[str]) -> Verdict:
    """The verdict on `replies`; one on other replies says nothing of these."""
    if at < len(verdicts) and verdicts[at]["replies"] == replies:
        return verdicts[at]
    return {"ok": False, "why": "not judged", "replies": list(replies)}


def free(chat: Chat, console: Console) -> dict[str, int]:
    """Answer the freely typed questions, and write them out: what was accepted by hand."""
    talks = [item["turns"] for item in json.loads((FOLDER / "free.json").read_text(encoding="utf-8"))]
    verdicts = json.loads((FOLDER / "free_verdicts.json").read_text(encoding="utf-8"))
    said = converse(chat, talks)
    found = [judged(verdicts, at, replies) for at, replies in enumerate(said)]
    lines = [
        "# Freely typed questions",
        "",
        "Typed by somebody who had seen neither grammar nor reply. Judged by hand: would a person accept the answer?",
        "",
    ]
    for at, (talk, replies, verdict) in enumerate(zip(talks, said, found, strict=True)):
        why = f" ({verdict['why']})" if verdict["why"] else ""
        lines.append(f"{at + 1}. **{'accepted' if verdict['ok'] else 'not accepted'}**{why}")
        for question, reply in zip(talk, replies, strict=True):
            lines += [f"    - {question}", f"        > {reply}"]
    good = sum(verdict["ok"] for verdict in found)
    lines += ["", f"Accepted: {good} of {len(talks)}.", ""]
    console.print("\n".join(lines), markup=False)
    (FOLDER / "free_questions.md").write_text("\n".join(lines), encoding="utf-8")
    return {"accepted": good, "of": len(talks)}


def main(
    free_only: Annotated[bool, typer.Option("--free", help="Only the freely typed questions.")] = False,
    freeze_only: Annotated[bool, typer.Option("--freeze", help="Only write the test file.")] = False,
    models: Annotated[Path, typer.Option(help="The folder of `target` and `draft`.")] = MODELS,
    wrong: Annotated[int, typer.Option(help="How many wrong answers to print.")] = 20,
    write: Annotated[bool, typer.Option(help="Write results.json.")] = True,
) -> None:
    """Check the demo models."""
    console = Console(width=200, soft_wrap=True)
    torch.set_num_threads(1)
    test = FOLDER / "test.jsonl"
    if freeze_only:
        freeze(test)
        return
    target = Chat(models / "target")
    freely = free(target, console)
    if free_only:
        return
    marks = check(target, test)
    table(marks, console, wrong)
    results: dict[str, Any] = {
        "right_percent": shares(marks),
        "word_for_word_percent": shares(marks, "same"),
        "turns": len(marks),
        "free": freely,
    }
    for name in ("target", "draft"):
        ledger = models / name / "training.json"
        if ledger.exists():
            results[name] = json.loads(ledger.read_text(encoding="utf-8"))
    if (models / "draft" / "model.safetensors").exists():
        results["draft"]["speculation"] = acceptance(target, Chat(models / "draft"), test)
    console.print(results)
    if write:
        (FOLDER / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
