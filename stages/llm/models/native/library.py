"""The compiled step: built once for a processor and a compiler, kept in the user's cache, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from stages.usercache import user_cache

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("step.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-ffp-contract=fast", "-w")
TUNED = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native", "-fopenmp"), ())
"""What is tried, in this order: not every compiler knows all of it."""

PATIENCE_S = 120.0
"""How long one attempt to compile may take; it takes two seconds."""

Address = ctypes.c_void_p
Whole = ctypes.c_int64


class Layer(ctypes.Structure):
    """`Layer` of the source."""

    _fields_ = (
        *((name, Address) for name in ("before", "between", "query_norm", "key_norm")),
        *((name, Address) for name in ("qkv", "out", "gate_up", "down", "qkv_bias", "out_bias")),
        ("window", Whole),
    )


class Model(ctypes.Structure):
    """`Model` of the source."""

    _fields_ = (
        *(
            (name, Whole)
            for name in ("hidden", "inner", "heads", "kv_heads", "size", "layers", "vocabulary", "positions")
        ),
        ("eps", ctypes.c_float),
        ("scale", ctypes.c_float),
        *((name, Address) for name in ("table", "turns", "norm", "head")),
        ("layer", ctypes.POINTER(Layer)),
    )


class Step(ctypes.Structure):
    """`Step` of the source."""

    _fields_ = (
        *((name, Whole) for name in ("rows", "spans", "wanted", "threads", "stored")),
        *((name, Address) for name in ("ids", "blocks", "choose", "span", "store", "logits", "scratch")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled step; None, and a word in the log, where it cannot be had."""
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        log.info("no C++ compiler was found (install g++ or set CXX): steps are computed by torch, which is slower")
        return None
    try:
        found = _loaded(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("steps are computed by torch, as their faster way could not be compiled: %s", error)
        return None
    if found is None:
        return None
    found.scratch_bytes.restype = Whole
    found.scratch_bytes.argtypes = [ctypes.POINTER(Model), ctypes.POINTER(Step), Whole]
    found.step.restype = ctypes.c_char_p
    found.step.argtypes = found.scratch_bytes.argtypes
    return found


def _loaded(compiler: str) -> ctypes.CDLL | None:
    """The library; compiled anew each time, and its file removed, for a user who can keep none."""
    if folder := _folder():
        built = _built(compiler, folder)
        return ctypes.CDLL(str(built)) if built else None
    with tempfile.TemporaryDirectory(prefix="penstock-native-") as passing:
        built = _built(compiler, Path(passing))
        return ctypes.CDLL(str(built)) if built else None


def _built(compiler: str, folder: Path) -> Path | None:
    """The library's file in `folder`, compiled now if it was not before; None where it does not compile."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=PATIENCE_S).stdout
    key = hashlib.sha256(b"\0".join((SOURCE.read_bytes(), version, _processor(), " ".join(FLAGS).encode())))
    built = folder / f"step-{key.hexdigest()[:32]}.so"
    if built.is_file():
        return built
    why = ""
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        made = Path(workshop) / built.name
        for tuned in TUNED:
            command = [compiler, *FLAGS, *tuned, "-o", str(made), str(SOURCE)]
            outcome = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            if outcome.returncode == 0:
                made.replace(built)  # at once, as other processes may look for it
                return built
            why = why or outcome.stderr
    log.warning("steps are computed by torch, as %s does not compile their faster way: %s", compiler, why)
    return None


def _processor() -> bytes:
    """What tells this kind of processor from others: code that was tuned for one may not run on another."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor().encode() + platform.machine().encode()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in told.splitlines() if line.startswith(wanted)})).encode()


def _folder() -> Path | None:
    """Where compiled code is kept: for this user alone, as it is run. None where nothing can be kept."""
    folder = user_cache("native")
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK)
    except OSError:
        return None
    return folder if kept else None
