"""Our engine beside what one would use instead, transformers and llama.cpp: same weights and threads, in one run.

Every contestant gets the same prompts in alternating order, and says as many tokens: ends of sequence do not count. At
n streams n prompts are asked at once, and the next n when all are answered. Times count from there, also for those who
answer one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from apps.bench.llm_contest import Contestant, Ids, contest
from apps.bench.llm_plot import lines_of, plot
from apps.bench.llm_report import Width, aims_table, reached, speed_table, times_table, width_result
from apps.bench.report import measuring, told
from apps.parts import BUNDLED
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from apps.bench.llm_gguf import Precision
    from stages.llm.models.model import LoadedModel

PairName = Literal["demo", "large"]
DTypeName = Literal["bfloat16", "float32", "int8"]
Peers = Literal["transformers", "llama.cpp"]

Name = TypeVar("Name", bound=str)

PAIRS: tuple[PairName, ...] = get_args(PairName)
DTYPES: tuple[DTypeName, ...] = get_args(DTypeName)
PEERS: tuple[Peers, ...] = get_args(Peers)
WIDTHS = (1, 4, 16, 64)
LEAST_PROMPTS = 8
"""Answers of a contestant in a round, at least: with one stream, so many after each other."""
AGREEMENT = 0.8
SEED = 2026
CONTEXT = {"demo": 320, "large": 1280}
"""Tokens that prompt and answer have together at most."""
GGUF: Mapping[DTypeName, Precision] = MappingProxyType({"bfloat16": "BF16", "float32": "F32", "int8": "Q8_0"})

LEGEND = (
    "first: from the request; between: from token to token, where a chunk's tokens share its time; gap: between chunks",
    "right: of the tokens guessed; same: answers equal to ours without speculation (in bfloat16 near ties may differ)",
)
CURE = "pip install 'penstock[bench]', which compiles for some minutes"


class Plan(NamedTuple):
    """How much to measure. `threads` 0 is one for the demo pair, and all cores for the large one."""

    widths: tuple[int, ...] = WIDTHS
    rounds: int = 3
    tokens: int = 32
    threads: int = 0
    dtype: DTypeName = "bfloat16"
    pairs: tuple[PairName, ...] = PAIRS
    peers: tuple[Peers, ...] = PEERS


class Pair(NamedTuple):
    """A model and its draft, in these folders."""

    name: PairName
    target: Path
    draft: Path
    note: str


def chosen(names: Sequence[str] | None, known: tuple[Name, ...], option: str) -> tuple[Name, ...]:
    """Those of `known` that are named, or all if none are.

    Raises:
        SettingsError: one is none of them.
    """
    for name in names or ():
        if name not in known:
            raise SettingsError(option, f"there is no {name!r}; there are {', '.join(known)}")
    return tuple(name for name in known if not names or name in names)


def llm(plan: Plan, *, path: Path | None, svg: Path | None) -> None:
    """Measure, and tell.

    Raises:
        ModelLoadError: a model cannot be loaded.
    """
    missing = [] if installed() or "llama.cpp" not in plan.peers else ["llama.cpp"]
    results: list[dict[str, Any]] = []
    tables: list[Table] = []
    each = plan.rounds * len(plan.widths)
    with measuring("measuring", each * len(plan.pairs)) as step:
        for pair in map(pair_of, plan.pairs):
            widths = list(measured(pair, plan, step))
            met = list(reached(pair.name, widths))
            tables += [draw(pair.name, width) for width in widths for draw in (speed_table, times_table)]
            tables.append(aims_table(f"{pair.name}: aims", met))
            results.append(
                {
                    "pair": pair.name,
                    "note": pair.note,
                    "threads": threads_of(pair, plan),
                    "widths": [width_result(width) for width in widths],
                    "aims": [one.result() for one in met],
                }
            )
    notes = [f"{pair['pair']}: {pair['note']}; {in_words(pair['threads'])}" for pair in results]
    rules = f"{plan.dtype}, greedy, {plan.tokens} tokens an answer, {plan.rounds} alternating rounds"
    remarks = [*notes, rules, *LEGEND, *(f"{name} was not measured: {CURE}" for name in missing)]
    result = {"bench": "llm", "plan": {**plan._asdict()}, "missing": missing, "pairs": results}
    told(result, tables, remarks, path)
    if svg is not None:
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(plot({pair["pair"]: lines_of(pair) for pair in results}), encoding="utf-8")


def in_words(threads: int) -> str:
    """In words."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def installed() -> bool:
    """Whether llama.cpp can be measured."""
    return find_spec("llama_cpp") is not None and find_spec("gguf") is not None


def pair_of(name: PairName) -> Pair:
    """The models called `name`; the large ones are made if they are not there."""
    if name == "demo":
        return Pair(name, BUNDLED / "target", BUNDLED / "draft", "the bundled model and its draft, trained")
    from apps.bench.llm_large import large_pair

    target, draft = large_pair(BUNDLED / "target", AGREEMENT)
    note = f"123 M parameters, 12 layers, random; the draft is right after {AGREEMENT:.0%} of tokens, by construction"
    return Pair(name, target, draft, note)


def threads_of(pair: Pair, plan: Plan) -> int:
    """How many threads each contestant computes with."""
    import torch

    return plan.threads or (1 if pair.name == "demo" else torch.get_num_threads())


def measured(pair: Pair, plan: Plan, step: Callable[[], None]) -> Iterator[Width]:
    """Measure `pair` at each width."""
    import torch

    from stages.llm.models.model import load_model

    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(pair, plan))
    try:
        models = [load_model(folder, device="cpu", dtype=plan.dtype) for folder in (pair.target, pair.draft)]
        prompts = prompts_of(pair, models[0], plan.tokens)
        with TemporaryDirectory() as folder:
            for width in plan.widths:
                warm, *asked = [list(islice(prompts, max(width, LEAST_PROMPTS))) for _ in range(plan.rounds + 1)]
                with ExitStack() as stack:
                    contestants = cast(pair, models, plan, width, Path(folder), stack)
                    rounds = contest(contestants, asked, warm=warm, tokens=plan.tokens, streams=width, step=step)
                    yield Width(width, rounds, {one.name: one.serves for one in contestants})
    finally:
        torch.set_num_threads(before)


def prompts_of(pair: Pair, model: LoadedModel, tokens: int) -> Iterator[Ids]:
    """What is asked."""
    from apps.bench.llm_prompts import demo_prompts, standard_prompts

    longest = CONTEXT[pair.name] - tokens
    if pair.name == "demo":
        return demo_prompts(model.tokenizer, tokens=tokens, longest=longest, seed=SEED)
    return standard_prompts(model.tokenizer, longest=longest, seed=SEED)


def cast(
    pair: Pair, models: Sequence[LoadedModel], plan: Plan, width: int, folder: Path, stack: ExitStack
) -> list[Contestant]:
    """All who take part, ours first; `stack` closes them. GGUF files are kept in `folder`."""
    from apps.bench.llm_ours import our_contestants
    from apps.bench.llm_transformers import transformers_contestants

    context = CONTEXT[pair.name]
    target, draft = models
    contestants: list[Contestant] = [*our_contestants(target, draft, streams=width)]
    if "transformers" in plan.peers:
        contestants += transformers_contestants(
            str(pair.target), str(pair.draft), plan.dtype, streams=width, context=context
        )
    if "llama.cpp" in plan.peers and installed():
        from apps.bench.llm_llama import llama_contestants

        files = [gguf(one, folder, plan.dtype) for one in (pair.target, pair.draft)]
        threads = threads_of(pair, plan)
        contestants += llama_contestants(*files, streams=width, context=context, threads=threads)
    for one in contestants:
        stack.callback(one.close)
    return contestants


def gguf(model: Path, folder: Path, dtype: DTypeName) -> Path:
    """The model in the folder `model` as a GGUF file, written into `folder` when it is first asked for."""
    from apps.bench.llm_gguf import write_gguf

    path = folder / f"{model.name}.gguf"
    if not path.exists():
        write_gguf(model, path, GGUF[dtype])
    return path
