"""What is to be done in a run: the faults with their times, and what clients ask. All of it follows from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from apps.parts import NAMES
from apps.speaking import SPEAK
from apps.speech import SPEECH
from pipeline.errors import SettingsError

FIRST_S = 3.0
"""Seconds until the first fault: answers are streaming by then."""
TURNS = 4
"""Questions in a session."""
JITTER = (0.7, 1.3)
SEEDED = {"temperature": 0.9, "top_p": 0.95}
GREEDY = {"temperature": 0.0}

QUESTIONS = (
    "How much is a tent for two?", "Do you ship to France?", "What are your opening hours?",
    "Can I return a pair of boots?", "Which sleeping bag is warm enough for winter?", "Where is my order?",
    "How do I wash a down jacket?", "Do you have a gift card?", "What is the best stove for a family?",
    "Is the rain jacket waterproof?", "How long does delivery take?", "Can I pay by invoice?",
    "What sizes do the boots come in?", "Do you repair zippers?", "Tell me about the two-person tent.",
    "Thank you! Anything else I should know?",
)  # fmt: skip


class Kind(StrEnum):
    """What can be done to a deployment."""

    KILL = "kill"
    PAUSE = "pause"
    FREEZE = "freeze"
    DRAIN = "drain"
    REBALANCE = "rebalance"
    BROKER = "broker"
    GATEWAY = "gateway"
    LEAVE = "leave"


TEXTS = {
    Kind.KILL: "a worker is killed with -9",
    Kind.PAUSE: "a worker is stopped for a moment and goes on",
    Kind.FREEZE: "a worker is stopped for longer than its group waits, and wakes up if it still lives",
    Kind.DRAIN: "a worker is told to stop (SIGTERM)",
    Kind.REBALANCE: "two more members join a stage's group, and leave it again",
    Kind.BROKER: "the broker is killed with -9 and started again",
    Kind.GATEWAY: "a gateway is killed with -9 and started again",
    Kind.LEAVE: "a gateway is told to stop (SIGTERM), and started again",
}
OF_A_STAGE = (Kind.KILL, Kind.PAUSE, Kind.FREEZE, Kind.DRAIN, Kind.REBALANCE)
TWICE = ((Kind.KILL, "llm"), (Kind.KILL, SPEECH), (Kind.KILL, SPEAK))
"""What stands in each round twice: the takeovers in which most is in hand."""


class Fault(NamedTuple):
    """One thing that is done, `at` so many seconds after the clients began; `stage` is empty where it is no stage's."""

    number: int
    at: float
    kind: Kind
    stage: str

    @property
    def name(self) -> str:
        """What people call this sort of fault."""
        return f"{self.kind} {self.stage}".strip()


@dataclass(frozen=True)
class Plan:
    """How a run goes; times in seconds.

    `every` is the mean time between two faults, `pause` and `freeze` how long a stopped worker rests, `down` how long
    the broker and gateways stay away. `tokens` is the length of an answer at most, `pace` the rest after each token.
    `comparisons` is how often an LLM worker without supervisor is killed for comparison. `voices` are clients that
    speak and are spoken to, and have `recordings` to play; `asr` names the recogniser.
    """

    seed: int = 1
    minutes: float = 1.0
    clients: int = 8
    scripts: int = 8
    kinds: tuple[Kind, ...] = tuple(Kind)
    every: float = 10.0
    model: str = ""
    pace: float = 0.08
    tokens: int = 48
    replicas: int = 2
    standby: int = 1
    gateways: int = 2
    partitions: int = 8
    pause: float = 1.5
    freeze: float = 13.0
    down: float = 2.0
    comparisons: int = 0
    voices: int = 0
    recordings: int = 4
    asr: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that serve."""
        return (*NAMES, SPEECH, SPEAK) if self.voices else NAMES


class Question(NamedTuple):
    """One turn of a script: what is said, and how the answer is drawn."""

    text: str
    sampling: dict[str, Any]

    @property
    def greedy(self) -> bool:
        """Whether the answer is the likeliest one."""
        return not self.sampling["temperature"]


class Script(NamedTuple):
    """What one session asks, one question after the other, in one conversation."""

    number: int
    questions: tuple[Question, ...]


def kinds_of(text: str) -> tuple[Kind, ...]:
    """The kinds of fault in a list with commas; all where it is empty.

    Raises:
        SettingsError: one does not exist.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Kind)]
    if unknown:
        raise SettingsError("faults", f"there is no fault {unknown[0]!r}; there are {', '.join(Kind)}")
    return tuple(kind for kind in Kind if kind in names) if names else tuple(Kind)


def without_broker(plan: Plan) -> Plan:
    """`plan` where the broker is not ours to break.

    Raises:
        SettingsError: nothing else is to be broken.
    """
    kinds = tuple(kind for kind in plan.kinds if kind is not Kind.BROKER)
    if not kinds:
        raise SettingsError("faults", "a broker that is given is not broken, and nothing else was chosen")
    return replace(plan, kinds=kinds)


def scripts(plan: Plan) -> tuple[Script, ...]:
    """What is asked: greedy and seeded by turns, so that every session has both."""
    chance = random.Random(f"{plan.seed}:scripts")

    def question(n: int) -> Question:
        sampling = dict(SEEDED if n % 2 else GREEDY)
        return Question(chance.choice(QUESTIONS), {**sampling, "seed": chance.randrange(1 << 31)})

    return tuple(
        Script(number, tuple(question(number + turn) for turn in range(TURNS))) for number in range(plan.scripts)
    )


def order_of(plan: Plan, client: int) -> Iterator[int]:
    """The numbers of the scripts that a client plays, without end."""
    chance = random.Random(f"{plan.seed}:client:{client}")
    while True:
        yield chance.randrange(plan.scripts)


def schedule(plan: Plan) -> list[Fault]:
    """The faults: every sort once a round, in an order of its own, until the time is over."""
    chance = random.Random(f"{plan.seed}:faults")
    faults: list[Fault] = []
    at, waiting = FIRST_S, list[tuple[Kind, str]]()
    while at < plan.minutes * 60:
        if not waiting:
            waiting = sorts(plan.kinds, plan.stages)
            chance.shuffle(waiting)
        faults.append(Fault(len(faults) + 1, at, *waiting.pop()))
        at += plan.every * chance.uniform(*JITTER)
    return faults


def sorts(kinds: Sequence[Kind], stages: Sequence[str] = NAMES) -> list[tuple[Kind, str]]:
    """What makes a round: each kind for each stage that it can strike."""
    found = [(kind, stage) for kind in kinds for stage in (stages if kind in OF_A_STAGE else ("",))]
    return [*found, *(sort for sort in TWICE if sort in found)]
