"""Compile the kernels for GPUs, without one: what the compiler refuses, the interpreter may not.

    python -m tests.stages.llm.gpu.compiled 90

Writes for each kernel, as JSON, the bytes of shared memory and of stack that a program takes; stack is for what finds
no room in registers. In a process of its own, since it must not be one where the interpreter was chosen.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stages.llm.cache.kv import BLOCK
from stages.llm.gpu import kernels, launch
from stages.llm.gpu.tables import SPLIT

DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
POINTERS = {"result", "query", "store", "keys", "values"}
NUMBERS = {"parts": "*fp32", "sums": "*fp32", "scale": "fp32", "cap": "fp32"}
TABLES = {"tables", "tiles", "slots", "positions"}
SHARED = {80: 166_912, 90: 232_448}
"""Bytes that a program may take, by compute capability: of an A100, an H100."""


def compile_for(
    kernel: Any, capability: int, element: str, constants: dict[str, Any], warps: int, stages: int = 1
) -> dict[str, int]:
    """What a program of `kernel` takes."""

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in POINTERS:
            return f"*{element}"
        return NUMBERS.get(name, "*i32" if name in TABLES else "i32")

    names = kernel.arg_names
    aligned = [n for n, name in enumerate(names) if kind(name)[0] == "*" or name.endswith("stride")]
    source = ASTSource(
        fn=kernel,
        signature={name: kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(number,): [["tt.divisibility", 16]] for number in aligned},
    )
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    program = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program.asm["cubin"])
        file.flush()
        used = subprocess.run(
            [DUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    (stack,) = re.findall(r"STACK:(\d+)", used)
    return {"shared": program.metadata.shared, "stack": int(stack)}


def compile_all(capability: int, dtype: torch.dtype, group: int, size: int) -> dict[str, dict[str, int]]:
    """All kernels for a model with so many query heads for a KV head, of that size."""
    element = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    cut = launch.tiling(group, size, dtype, SHARED[capability])
    sizes = {"SIZE": size, "PADDED": launch.padded_size(size)}
    attend = {**sizes, "GROUP": group, "FOLD": cut.fold, "ROWS": cut.rows, "BLOCK": BLOCK, "SPLIT": SPLIT}
    attend |= {"CAPPED": False, "WINDOWED": True}
    done = {
        "write": compile_for(kernels.write, capability, element, {**sizes, "BLOCK": BLOCK}, 1),
        "reduce": compile_for(kernels.reduce, capability, element, {**sizes, "SPLIT": SPLIT, "WINDOWED": True}, 1),
    }
    for beside in (False, True):
        constants = {**attend, "BESIDE": beside}
        name = "attend beside" if beside else "attend"
        done[name] = compile_for(kernels.attend, capability, element, constants, cut.warps, cut.stages)
    return done


def main() -> None:
    """Compile for a model like Llama 3 8B."""
    capability = int(sys.argv[1])
    json.dump(compile_all(capability, torch.bfloat16, 4, 128), sys.stdout)


if __name__ == "__main__":
    main()
