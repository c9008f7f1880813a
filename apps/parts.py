"""What the stages are made of, and the stages by name: tokenizer, vocabulary and engine, each loaded once a process.

The one place that puts stages together. Importing it loads no library of models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry

from apps.disk_metrics import DiskCollector
from apps.engine_metrics import EngineCollector
from apps.remote import check_remote, remote_engine
from apps.settings import ModelSettings, Settings, StageSettings
from apps.speaking import SPEAK, loaded_speak
from apps.speech import SPEECH, loaded_speech
from apps.unstoppable import in_thread
from pipeline.errors import EngineUnavailable, ModelLoadError, SettingsError
from pipeline.messages import Prompt
from pipeline.stage import Stage, chain
from stages.detokenize import Vocabulary
from stages.llm.instant import InstantEngine
from stages.llm.models.configs import check_configs, local, positions_of
from stages.llm.stage import Engine, Run, llm_stage
from stages.postprocess.stage import postprocess_stage
from stages.preprocess.text.stage import TextStage, text_stage
from stages.tokens import load_tokenizer
from stages.usercache import user_cache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stages.llm.cache.disk import DiskCache
    from stages.llm.engine import TorchEngine
    from stages.llm.models.model import LoadedModel

NAMES = ("text", "llm", "postprocess")
"""The stages of an answer, in the order in which they follow each other."""
ALONE = (SPEECH, SPEAK)
"""Stages that no other follows in the same process."""
INSTANT = "instant"
NO_DRAFT = "none"
BUNDLED = Path(__file__).parent / "demo" / "models"
BUNDLED_NAME = "penstock-demo"
DEMO_THREADS = 1
"""So small a model is no faster with two, and ten times slower when another program keeps one of them waiting."""
DEFAULT_CONTEXT = 2048

Tell = Callable[[str, float | None], None]
"""(what is being done, how much of it is done from 0 to 1, or None if nobody knows)."""


@dataclass(frozen=True)
class Parts:
    """What stages are made of. `engine` is None in a process without the LLM stage."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    context: int
    engine: Engine | None = None
    busy_since: Callable[[], float | None] = lambda: None
    """When the model's step in progress began (`time.monotonic`); None: no step is in progress."""
    takes: int = 0
    """Turns that the engine takes at once, so that it can tell which of them must wait and which must go."""
    problem: Callable[[], str] = lambda: ""
    """Why the engine cannot serve now; nothing if it can."""
    repeatable: bool = True
    """Whether an answer that is computed anew is the same answer."""

    def stage(self, name: str, settings: StageSettings) -> Stage:
        """The stage called `name`."""
        if name == "text":
            text = TextStage(self.tokenizer, context=self.context, models=(self.name,))
            stage = text_stage(text)
        elif name == "llm":
            assert self.engine is not None
            stage = llm_stage(self.engine, max_prompt=self.context - 1)
        else:
            stage = postprocess_stage(Vocabulary(self.tokenizer))
        concurrency = max(settings.concurrency, self.takes) if name == "llm" else settings.concurrency
        return replace(stage, concurrency=concurrency, span=settings.span)

    def chained(self, names: Sequence[str], settings: StageSettings) -> Stage:
        """The stages called `names` as one.

        Raises:
            SettingsError: a chain begins its turns anew after a takeover, and the engine would answer otherwise.
        """
        if len(names) > 1 and "llm" in names and not self.repeatable:
            raise SettingsError(
                "stage", "with the engine `openai`, llm must be a stage of its own: run it without others"
            )
        stages = [self.stage(name, settings) for name in names]
        return stages[0] if len(stages) == 1 else chain(*stages)


class Loaded(Protocol):
    """What a worker needs to know of what it has loaded: `Parts`, or those of a stage that stands alone."""

    @property
    def busy_since(self) -> Callable[[], float | None]:
        """When the model's step in progress began (`time.monotonic`); None: no step is in progress."""

    @property
    def problem(self) -> Callable[[], str]:
        """Why it cannot serve now; nothing if it can."""

    def chained(self, names: Sequence[str], settings: StageSettings) -> Stage:
        """The stages called `names` as one."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """`names`, if they are stages that follow each other on the route, or one that stands alone.

    Raises:
        SettingsError: one is no stage, or the next one does not read what it says.
    """
    for name in names:
        if name not in NAMES + ALONE:
            raise SettingsError("stage", f"there is no stage {name!r}; there are {', '.join(NAMES + ALONE)}")
        if name in ALONE and len(names) > 1:
            raise SettingsError("stage", f"{name} stands alone: run it without others")
    if len(names) == 1:
        return tuple(names)
    if tuple(names) not in {NAMES[i:j] for i in range(len(NAMES)) for j in range(i + 1, len(NAMES) + 1)}:
        raise SettingsError("stage", f"{' '.join(names)} do not follow each other; the order is {' '.join(NAMES)}")
    return tuple(names)


def loaded_for(
    names: Sequence[str], settings: Settings, *, tell: Tell, registry: CollectorRegistry
) -> AbstractAsyncContextManager[Loaded]:
    """Load what the stages called `names` need; see `loaded`."""
    if names[0] == SPEECH:
        return loaded_speech(settings.asr, registry)
    if names[0] == SPEAK:
        return loaded_speak(settings.speak, registry)
    return loaded(settings.model, with_engine="llm" in names, tell=tell, registry=registry)


@asynccontextmanager
async def loaded(
    model: ModelSettings,
    *,
    with_engine: bool = True,
    tell: Tell = lambda what, share: None,
    registry: CollectorRegistry | None = None,
) -> AsyncGenerator[Parts, None]:
    """Load what the stages need, off the event loop; `tell` hears how far it has come, `registry` gets its metrics.

    Raises:
        ModelLoadError: the model or its tokenizer cannot be loaded.
        SettingsError: the settings of a server that shall compute are not enough.
    """
    if with_engine and model.engine == "openai":
        check_remote(model)
        tokenizer, context = await in_thread(_without_weights, model)
        async with remote_engine(model, tokenizer, context, registry) as remote:
            parts = Parts(served_name(model), tokenizer, remote.context, _paced(remote, model), takes=remote.takes)
            yield replace(parts, problem=lambda: remote.problem, repeatable=False)
        return
    if with_engine and model.name != INSTANT:
        async with _engine(model, tell, registry) as (engine, tokenizer, context):
            paced = _paced(engine, model)
            yield Parts(served_name(model), tokenizer, context, paced, lambda: engine.busy_since, engine.takes)
        return
    tokenizer, context = await in_thread(_without_weights, model)
    parts = Parts(served_name(model), tokenizer, context)
    if with_engine:
        parts = replace(parts, engine=_paced(_instant(tokenizer), model))
    yield parts


def source(model: ModelSettings) -> str:
    """Where the model comes from: a folder or a Hugging Face name.

    Raises:
        ModelLoadError: it is the bundled one, and that is not there.
    """
    if model.name and model.name != INSTANT:
        return str(Path(model.name).expanduser()) if Path(model.name).expanduser().is_dir() else model.name
    folder = BUNDLED / "target"
    if not folder.is_dir():
        raise ModelLoadError(str(folder), "the bundled demo model is not there; name another with --model")
    return str(folder)


def draft_source(model: ModelSettings) -> str | None:
    """Where the draft model comes from, or None if there is none."""
    if model.draft == NO_DRAFT or model.speculation in ("off", "ngram"):
        return None
    if model.draft:
        return str(Path(model.draft).expanduser()) if Path(model.draft).expanduser().is_dir() else model.draft
    folder = BUNDLED / "draft"
    return str(folder) if not model.name and folder.is_dir() else None


def served_name(model: ModelSettings) -> str:
    """The name by which clients may ask for the model."""
    if model.alias:
        return model.alias
    if not model.name or model.name == INSTANT:
        return BUNDLED_NAME
    return Path(model.name).name if Path(model.name).expanduser().is_dir() else model.name


def on_disk(model: ModelSettings) -> ModelSettings:
    """`model` with a folder for its keys and values, by the XDG convention if none is set."""
    folder = user_cache("kv")
    return model if model.disk or folder is None else replace(model, disk=str(folder))


def _without_weights(model: ModelSettings) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer and the context of `model`."""
    where = source(model)
    if folder := local(where):
        check_configs(where, folder)
    tokenizer = load_tokenizer(where)
    return tokenizer, model.context or positions_of(where) or DEFAULT_CONTEXT


@asynccontextmanager
async def _engine(
    model: ModelSettings, tell: Tell, registry: CollectorRegistry | None
) -> AsyncGenerator[tuple[TorchEngine, PreTrainedTokenizerBase, int], None]:
    """The torch engine with its tokenizer and context."""
    target, draft = await in_thread(_loaded, model, tell)
    from stages.llm.engine import TorchEngine  # after that thread has imported torch, which takes seconds

    disk = _disk(model, target, draft)
    if disk and registry:
        registry.register(DiskCollector(disk.counts))
    engine = TorchEngine(
        target,
        draft=draft,
        speculation=model.speculation,
        ahead=model.speculation_length,
        most=model.batch,
        queue=model.queue,
        max_wait_s=model.max_wait_s,
        kv_bytes=model.kv_mb << 20,
        prefix_bytes=model.prefix_mb << 20,
        disk=disk,
    )
    if registry:
        registry.register(EngineCollector(lambda: engine.state))
    async with engine, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_watch(engine))
        yield engine, target.tokenizer, target.context
        watching.cancel()


def _disk(model: ModelSettings, target: LoadedModel, draft: LoadedModel | None) -> DiskCache | None:
    from stages.llm.cache.disk import DiskCache

    if not model.disk or not model.disk_mb:
        return None
    return DiskCache(Path(model.disk).expanduser(), model.disk_mb << 20, target, draft)


async def _watch(engine: TorchEngine) -> None:
    """A worker whose model is dead would go on to take turns and fail them, while others could answer: end it."""
    await engine.died()
    raise EngineUnavailable("the model thread has died")


def _loaded(model: ModelSettings, tell: Tell) -> tuple[LoadedModel, LoadedModel | None]:
    import torch

    from stages.llm.models.model import load_model

    if threads := model.threads or (0 if model.name else DEMO_THREADS):
        torch.set_num_threads(threads)
    context = model.context or None
    how: dict[str, Any] = {
        "device": model.device,
        "dtype": model.dtype,
        "forward": model.forward,
        "graphs": model.graphs,
    }
    target = load_model(source(model), **how, context=context, progress=tell)
    folder = draft_source(model)
    if folder is None:
        return target, None
    draft = load_model(folder, **how, progress=lambda what, share: tell(f"draft: {what}", share))
    return target, draft


def _instant(tokenizer: PreTrainedTokenizerBase) -> InstantEngine:
    """An engine that makes tokens up: ordinary ones, from the middle of the vocabulary on."""
    last = max(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    return InstantEngine(vocabulary=range(last // 2, last))


def _paced(engine: Engine, model: ModelSettings) -> Engine:
    return Paced(engine, model.pace_s) if model.pace_s else engine


class Paced:
    """An engine that speaks token by token and rests after each, for demonstrations and tests of slowness."""

    def __init__(self, engine: Engine, pause: float) -> None:
        self._engine = engine
        self._pause = pause

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Run, None]:
        """See `Engine.generate`."""
        async with aclosing(self._engine.generate(prompt)) as runs:
            async for run in runs:
                for number, token in enumerate(run.ids[:-1]):
                    yield Run((token,), None, run.cached_tokens, run.likelihoods[number : number + 1])
                    await asyncio.sleep(self._pause)
                yield Run(run.ids[-1:], run.finish, run.cached_tokens, run.likelihoods[-1:])
                await asyncio.sleep(self._pause)
