"""Load a Hugging Face causal LM so that the engine can run it, or say in plain words why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pipeline.errors import ModelLoadError
from stages.detokenize import Vocabulary
from stages.llm.cache.kv import Shape
from stages.llm.gpu.steps import steps_for
from stages.llm.models import attention, checkpoint, kinds, linears, progress, rowwise, slim
from stages.llm.models.configs import positions
from stages.llm.models.native import decoder
from stages.llm.models.steps import Steps
from stages.tokens import brief, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Forward = Literal["auto", "torch", "library"]
Progress = Callable[[str, float | None], None]
"""(what is being done, how much of it is done from 0 to 1, or None if nobody knows)."""

NOTHING = Shape(0, 0, 0, torch.float32, torch.device("cpu"))


@dataclass(frozen=True)
class LoadedModel:
    """A causal LM with our attention, and what belongs to it.

    `context` is the number of positions, `eos` are the tokens that end an answer, `fingerprint` tells these weights in
    this precision from all others, `kv` is what it keeps of a token, `tokens` the number of ids it has rows for.
    `revision` tells these very files, computed by these libraries on this kind of machine, from all others: keys and
    values of the same revision are the same bits. `steps` computes its steps, where that is not left to `network`.
    """

    name: str
    network: Any
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    device: torch.device
    context: int
    eos: frozenset[int]
    fingerprint: str
    tokens: int
    kv: Shape = NOTHING
    steps: Steps | None = None
    revision: str = ""


def load_model(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: DType = "auto",
    forward: Forward = "auto",
    context: int | None = None,
    graphs: bool = True,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load the model in the folder `source`, or the Hugging Face model of that name. Blocks, for minutes perhaps.

    Args:
        source: A folder is never looked for on the network.
        device: `auto` takes CUDA where there is one.
        dtype: `auto` is float32 on the CPU, else the checkpoint's own; `int8` rounds the weights of linear layers (and
            on the CPU what they are multiplied with, all else there in float32).
        forward: `torch` leaves out the compiled steps that some kinds of models have on the CPU (see `native/`), and
            `library` also the engine's own forward pass (see `slim.py`).
        context: Fewer positions than the model has, to save memory.
        graphs: Whether an engine may record small steps as CUDA graphs.
        progress: Is told how far loading has come.

    Raises:
        ModelLoadError: says which file is at fault, or what the model needs that the engine does not do.
    """
    tell = progress or (lambda _what, _share: None)
    source = str(source)
    tell("looking at the files", None)
    folder = checkpoint.find(source)
    files = checkpoint.check(source, folder)
    tokenizer = load_tokenizer(folder)
    place = _device(source, device)
    network = _load(source, folder, _dtype(dtype, place), tell).to(place).eval()
    kinds.check_network(source, network)
    if dtype == "int8":
        network = _quantized(network)
    tell("trying it out", None)
    model = LoadedModel(
        name=source,
        network=network,
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        device=place,
        context=_context(source, network, context),
        eos=_eos(network, tokenizer),
        tokens=network.get_input_embeddings().weight.shape[0],
        steps=steps_for(network, place, graphs=graphs),
        fingerprint=checkpoint.fingerprint(folder, files, *_precision(network, dtype), attention.NAME),
    )
    _check_vocabulary(model)
    import transformers

    model, bits = _tried(model, forward)
    revision = checkpoint.revision(model.fingerprint, files, bits, torch.__version__, transformers.__version__)
    model = replace(model, revision=revision)
    tell("ready", 1.0)
    return model


def _device(source: str, device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelLoadError(source, f"there is no device {device!r}; use auto, cpu or cuda") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(source, "torch finds no CUDA device; use device cpu, or look at `nvidia-smi`")
    return place


def _dtype(dtype: DType, device: torch.device) -> torch.dtype | Literal["auto"]:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype == "int8":
        return "auto"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]


def _quantized(network: Any) -> Any:
    """The network with weights of 8 bits, and on the CPU all else in float32, in which small operations are fastest."""
    linears.quantize(network)
    return network.float() if network.device.type == "cpu" else network


def _precision(network: Any, dtype: DType) -> list[str]:
    """What tells the numbers it computes with from others."""
    return [str(network.dtype), *(["int8"] if dtype == "int8" else [])]


def _tried(model: LoadedModel, forward: Forward) -> tuple[LoadedModel, str]:
    """`model` with the fastest way to compute it that is right, tried out; and what tells its bits, see `probe`."""
    network = model.network
    own = network.config._attn_implementation  # noqa: SLF001 - has no public name
    ways = [_by_library]
    if forward != "library" and slim.known(network) and linears.fits(network):
        ways = [_by_torch, _by_library]
        if forward == "auto" and not linears.quantized(network) and decoder.known(network):
            ways = [_natively, *ways]
    for way in ways[:-1]:
        try:
            return way(model)
        except ModelLoadError as error:
            log.warning("%s is computed in a slower way: %s", model.name, error)
            slim.remove(network)
            network.set_attn_implementation(own)
    return ways[-1](model)


def _natively(model: LoadedModel) -> tuple[LoadedModel, str]:
    return _probed(replace(model, steps=decoder.NativeSteps(model.network, model.context)))


def _by_torch(model: LoadedModel) -> tuple[LoadedModel, str]:
    slim.install(model.network, model.context)
    found = _probed(model)
    linears.forget(model.network, also_products=True)
    return found


def _by_library(model: LoadedModel) -> tuple[LoadedModel, str]:
    linears.pack(model.network)
    rowwise.steady(model.network)
    found = _probed(model)
    linears.forget(model.network, also_products=False)
    return found


def _probed(model: LoadedModel) -> tuple[LoadedModel, str]:
    from stages.llm.models.probe import probe

    kv, bits = probe(model)
    return replace(model, kv=kv), bits


def _load(source: str, folder: Path, dtype: torch.dtype | Literal["auto"], tell: Progress) -> Any:
    """The network, with every one of its weights from the files: none made up."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kinds.check_config(source, config)
        with progress.told("loading the weights", tell):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that we can say which
            )
    except ModelLoadError:
        raise
    except Exception as error:  # whatever transformers and the model's own code raise
        raise ModelLoadError(source, brief(error)) from error
    network, info = loaded
    for name, found, expected in info["mismatched_keys"]:
        shapes = f"{list(found)} in the files and {list(expected)} by its config.json"
        raise ModelLoadError(source, f"{name} has the shape {shapes}; they belong to different models")
    missing = sorted(info["missing_keys"])
    if missing:
        names = ", ".join(missing[:3])
        raise ModelLoadError(source, f"the files lack {len(missing)} of the model's weights ({names}, …)")
    return network


def _context(source: str, network: Any, wanted: int | None) -> int:
    most = positions(network.config.get_text_config()) or wanted or 2048
    if wanted is not None and wanted > most:
        raise ModelLoadError(source, f"a context of {wanted} was asked for, but the model has {most} positions")
    return wanted or most


def _eos(network: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends: set[int] = set()
    for named in (network.generation_config.eos_token_id, network.config.eos_token_id, tokenizer.eos_token_id):
        ends.update(named if isinstance(named, (list, tuple)) else () if named is None else (named,))
    return frozenset(ends)


def _check_vocabulary(model: LoadedModel) -> None:
    known = len(model.tokenizer)
    if known > model.tokens:
        why = f"its tokenizer has {known} tokens and its weights only {model.tokens}; they belong to different models"
        raise ModelLoadError(model.name, why)
