"""All settings of all programs, as one frozen tree, and where they are read from.

Each program is given the whole tree and looks at its part. A well-known name of the field (`KAFKA_BOOTSTRAP_SERVERS`)
is honoured beside ours.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from apps.gateway.settings import GatewaySettings
from apps.supervisor.settings import SupervisorSettings
from pipeline.errors import SettingsError
from pipeline.kafka.settings import KafkaSettings
from pipeline.redis.settings import RedisSettings
from pipeline.secret import NO_SECRET, Secret
from pipeline.settings import Layer, Loaded, from_environment, from_options, from_toml, load

PREFIX = "PENSTOCK_"
CONFIG = "PENSTOCK_CONFIG"
DEBUG = "PENSTOCK_DEBUG"
DEFAULT_FILE = Path("penstock.toml")
ALIASES = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.bootstrap"}
LONGEST_ECHO = 60

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class ModelSettings:
    """Which chat model, and how it is run. Where a stage needs only its tokenizer, only that is loaded."""

    name: str = ""
    """Hugging Face name or folder; none is the bundled demo model, `instant` an engine that makes tokens up."""
    draft: str = ""
    """The same for a smaller model with the same tokens, which guesses ahead and changes the speed, not the answers;
    none is the demo model's own, `none` no draft."""
    speculation: Literal["auto", "draft", "ngram", "both", "off"] = "auto"
    """Who guesses ahead, as far as it pays: the draft model, the text itself (`ngram`), both, nobody (`off`); `auto` is
    both where there is a draft model, else the text."""
    speculation_length: Annotated[int, Meta(ge=1, le=64)] = 8
    """Tokens that are guessed ahead at most."""
    alias: str = ""
    """The name by which clients may ask for it; none is its folder's or Hugging Face name."""
    engine: Literal["torch", "openai"] = "torch"
    """What computes: `torch` in this process, or `openai`, any server that speaks OpenAI's API (vLLM, SGLang, LMDeploy,
    TGI, TensorRT-LLM, llama.cpp, Ollama); the model's name is then that of its tokenizer."""
    base_url: str = ""
    """Where that server is: `http://HOST:PORT/v1`."""
    api_key: Secret = NO_SECRET
    """Its key, if it wants one; `file:PATH` is the file that holds it."""
    remote_name: str = ""
    """What the server calls the model; none is the model called like the tokenizer, or the only one it has."""
    server: Literal["auto", "openai", "vllm", "sglang", "lmdeploy", "tensorrt-llm", "llama.cpp", "llama-cpp-python"] = (
        "auto"
    )
    """What the server is, which decides what can be asked for beyond OpenAI's parameters; `auto` is what it says."""
    prompt_form: Literal["text", "ids"] = "text"
    """How prompts go there: `ids`, the exact tokens, to a server that takes them (vLLM, SGLang, llama.cpp's own)."""
    first_token_s: Seconds = 60.0
    """Seconds to wait for the first piece of an answer from there."""
    next_token_s: Seconds = 30.0
    """Seconds to wait for each further one; then the rest is asked for anew."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision of the weights; `auto` is float32 on a CPU and the model's own on a GPU. `int8` rounds those of
    linear layers to 8 bits: a quarter of float32's memory, half of bfloat16's, and not quite the same answers."""
    forward: Literal["auto", "torch", "library"] = "auto"
    """Whose code computes the model: `auto` takes the engine's own where it has some (Llama, Mistral, Qwen2, Qwen3), on
    a CPU compiled where it runs (by a C++ compiler; without one by torch), `torch` leaves out what is compiled,
    `library` always takes transformers', for comparison."""
    graphs: bool = True
    """Whether small steps are recorded as CUDA graphs at the start, where there is a GPU."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Processor threads of the engine; 0 is one for the demo model, and for any other what torch chooses."""
    context: Annotated[int, Meta(ge=0)] = 0
    """Tokens that prompt and answer may have together; 0 is what the model was made for."""
    batch: Positive = 32
    """Answers that the engine works on at once."""
    queue: Annotated[int, Meta(ge=0)] = 256
    """Answers that may wait for it; more are refused, with a time to come back."""
    max_wait_s: Seconds = 10.0
    """Seconds that a turn may wait until the model begins with it; one that would wait longer, by what the model is
    measured to do, is refused at once, with a time to come back."""
    kv_mb: Positive = 4096
    """Megabytes for the keys and values of running answers, as far as `batch` of them can need it; those without room
    wait, and a prompt for which all of it is too little is refused."""
    prefix_mb: Annotated[int, Meta(ge=0)] = 256
    """Megabytes beside those for what finished turns leave to the same tenant's later ones that begin alike; it is kept
    in whatever running answers do not use. 0 keeps nothing."""
    disk: str = ""
    """Folder where that goes for which there is no memory, and all of it at the end: what was said, as numbers, for
    this user to read alone. None is `penstock/kv` in the user's cache with `penstock up`, and nowhere with a stage."""
    disk_mb: Annotated[int, Meta(ge=0)] = 1024
    """Megabytes of files there, the least recently used dropped first; 0 is no such files."""
    pace_s: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds that an answer rests after each token: for demonstrations and tests of slowness."""


@dataclass(frozen=True)
class AsrSettings:
    """How speech is recognised."""

    model: str = ""
    """Whisper model, as faster-whisper knows it: `tiny`, `base.en`, `small`, `large-v3-turbo`, a Hugging Face name or a
    folder of CTranslate2's; none is the bundled demo model, `none` no recognition at all."""
    device: str = "auto"
    """`cpu`, `cuda`; `auto` takes a GPU if there is one."""
    compute_type: str = "default"
    """Precision of the weights, as CTranslate2 knows it: `int8`, `float16`, ...; `default` is the model's own."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Processor threads; 0 is one for the demo model, and for any other what CTranslate2 chooses, at most four."""
    beam: Annotated[int, Meta(ge=1, le=16)] = 1
    """Beams of what ends a turn; what is told meanwhile is always the likeliest."""
    language: str = ""
    """What is spoken (`en`, ...) where a session does not say so; none: find out, if the model knows several."""
    step_ms: Annotated[int, Meta(ge=100)] = 400
    """Milliseconds of sound from one partial transcript to the next; under load they come less often."""
    batch: Positive = 8
    """Pieces of speech that are recognised at once."""
    queue: Positive = 64
    """Pieces that end a turn and may wait; more are refused, with a time to come back."""
    max_wait_s: Seconds = 10.0
    """Seconds that such a piece may wait until it is refused."""


@dataclass(frozen=True)
class SpeakSettings:
    """How answers are spoken."""

    engine: Literal["espeak", "piper", "openai", "none"] = "espeak"
    """What speaks: espeak-ng, which comes with us; `piper`, neural voices (needs `penstock[piper]`); `openai`, any
    server with OpenAI's /v1/audio/speech; `none` nothing: answers are text."""
    voice: str = ""
    """Who speaks where a client names no voice that is there. espeak: a language, and maybe a variant (`en-us`,
    `de+f3`), of which OpenAI's names take other variants; piper: an .onnx file or a folder of them; openai: who speaks
    in any case, none is whom the client names."""
    rate: Annotated[int, Meta(ge=80, le=450)] = 175
    """Words a minute of espeak at the usual speed."""
    pitch: Annotated[int, Meta(ge=0, le=100)] = 50
    """How high espeak speaks."""
    base_url: str = ""
    """Where the server is, for `openai`: `http://HOST:PORT/v1`."""
    api_key: Secret = NO_SECRET
    """Its key, if it wants one; `file:PATH` is the file that holds it."""
    model: str = ""
    """What it calls its model; none is `tts-1`."""
    batch: Positive = 16
    """Sentences that it gets at once; more wait."""
    first_s: Seconds = 20.0
    """Seconds to wait for the first sound of a sentence from there."""
    next_s: Seconds = 10.0
    """Seconds to wait for each further one."""
    lead_s: Annotated[float, Meta(ge=0, le=30)] = 1.0
    """How many seconds before it is heard sound goes to the client: more bears a worse network, less has less to take
    back when somebody interrupts."""
    ahead_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    """How many seconds of it are ready before that."""


@dataclass(frozen=True)
class LogSettings:
    """What is written on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is told."""
    format: Literal["auto", "text", "json"] = "auto"
    """`auto` is text on a terminal and JSON elsewhere."""
    otlp_endpoint: str = ""
    """Where traces go, by OTLP over HTTP (`http://host:4318/v1/traces`; needs `penstock[otlp]`); none: nowhere."""


@dataclass(frozen=True)
class TopicSettings:
    """How `penstock topics create` sets the route up."""

    partitions: Positive = 8
    """Partitions of each topic that does not say so itself: the most processes that can share a stage's work."""
    replication: Positive = 1
    """Brokers that keep a copy of each record."""


@dataclass(frozen=True)
class HealthSettings:
    """The small HTTP server beside a stage: `/livez`, `/readyz`, `/metrics`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """Port to listen on; 0 is no such server."""


@dataclass(frozen=True)
class StageSettings:
    """How much a stage takes in hand."""

    concurrency: Positive = 256
    """Turns that a process works on at once."""
    span: Positive = 1000
    """Records of a partition between the oldest unfinished one and the newest started."""
    drain_s: Seconds = 30.0
    """Seconds that the work in hand is given to end when the program is told to stop."""
    wait_s: Seconds = 60.0
    """Seconds that a start waits for Kafka before it gives up."""


@dataclass(frozen=True)
class ChatSettings:
    """The chat in a terminal."""

    url: str = "ws://127.0.0.1:8080"
    """Where the gateway is."""
    key: Secret = NO_SECRET
    """API key, where the gateway wants one; `file:PATH` is the file that holds it."""
    model: str = ""
    """Name of the model to ask for; none means the gateway's own."""
    session: str = ""
    """A session to go on with."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    topics: TopicSettings = field(default_factory=TopicSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    asr: AsrSettings = field(default_factory=AsrSettings)
    speak: SpeakSettings = field(default_factory=SpeakSettings)
    stage: StageSettings = field(default_factory=StageSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    log: LogSettings = field(default_factory=LogSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)


def load_settings(
    environ: Mapping[str, str], *, file: Path | None = None, options: Iterable[tuple[str, Any, str]] = ()
) -> Loaded[Settings]:
    """Read the file (given, named by the environment, or `./penstock.toml`), the environment and the options.

    Raises:
        SettingsError: something is unknown or cannot be; it names itself and where it came from.
    """
    path = file or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    return load(
        Settings,
        _from_file(path) if path else {},
        from_environment(Settings, environ, prefix=PREFIX, aliases=ALIASES, others=(CONFIG, DEBUG)),
        from_options(Settings, options),
    )


def _from_file(path: Path) -> Layer:
    """What the file sets; a section's name with anything but a table behind it is told as what it is."""
    try:
        return from_toml(Settings, path)
    except SettingsError as error:
        section = error.name
        if section not in {one.name for one in dataclasses.fields(Settings)}:
            raise
        found = tomllib.loads(path.read_text(encoding="utf-8"))[section]
    what = f"expected a table ([{section}], and its settings below it), got {_toml(found)}"
    raise SettingsError(section, f"{what} (from {path})")


def _toml(value: object) -> str:
    """`value` as it may stand in the file, in short."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 1] + "…"
