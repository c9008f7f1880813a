"""The files of a model, looked at before anything is loaded from them. Knows no torch.

A truncated download is the commonest damage, and the loader's own words for it help nobody.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from pipeline.errors import ModelLoadError
from stages.llm.models.configs import CONFIG, check_configs, config_of, damaged, local, table

INDEX = "model.safetensors.index.json"
_SAMPLES, _SAMPLE = 64, 4096


def find(source: str) -> Path:
    """The folder of the model `source`: that folder, or where the Hugging Face library keeps the model of that name.

    Raises:
        ModelLoadError: there is neither.
    """
    folder = local(source)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"])
        )
    except Exception as error:  # the hub's library raises its own, its HTTP client's and the system's
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelLoadError(source, f"it is no folder here, and cannot be fetched by that name: {why}") from error


def check(source: str, folder: Path) -> list[Path]:
    """The weight files in `folder`, complete, and with all that belongs to them.

    Raises:
        ModelLoadError: names the file that is missing or damaged, and what to do.
    """
    check_configs(source, folder)
    config_of(source, folder)
    files = _weight_files(source, folder)
    for file in files:
        _check_file(source, file)
    return files


def fingerprint(folder: Path, files: list[Path], *parts: str) -> str:
    """What tells one set of weights from another, the same on every machine, without reading them all.

    The headers in full, and samples from all over each file: a fine-tuned model has its parent's header.
    """
    digest = hashlib.sha256("\0".join(parts).encode())
    digest.update((folder / CONFIG).read_bytes())
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as data:
            for number in range(_SAMPLES):
                data.seek(number * max(0, size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(data.read(_SAMPLE))
    return digest.hexdigest()[:32]


def revision(fingerprint: str, files: list[Path], *parts: str) -> str:
    """What tells these very files from all others, also from such as differ only between the samples: their dates."""
    dates = [f"{status.st_size} {status.st_mtime_ns}" for status in map(Path.stat, files)]
    return hashlib.sha256("\0".join([fingerprint, *dates, *parts]).encode()).hexdigest()[:32]


def _weight_files(source: str, folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        weights = table(source, index).get("weight_map")
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
            raise ModelLoadError(source, damaged(index, "is damaged (no map of the weights to files)"))
        names = sorted(set(weights.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelLoadError(source, f"{', '.join(missing)} is missing; {INDEX} lists it, so fetch it")
        return [folder / name for name in names]
    if not (folder / "model.safetensors").is_file():
        raise ModelLoadError(
            source, "model.safetensors is missing; fetch it (other formats are not read: they can run code)"
        )
    return [folder / "model.safetensors"]


def _check_file(source: str, file: Path) -> None:
    """A safetensors file: 8 bytes with the header's length, the header (JSON), the data."""
    size = file.stat().st_size
    try:
        with file.open("rb") as data:
            (length,) = struct.unpack("<Q", data.read(8))
            if length > size:
                raise ValueError("the header is cut off")
            header = json.loads(data.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelLoadError(source, f"{file.name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelLoadError(source, damaged(file, f"is damaged or cut off ({size} bytes)")) from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ModelLoadError(source, damaged(file, f"has {size} bytes and should have {expected}"))
