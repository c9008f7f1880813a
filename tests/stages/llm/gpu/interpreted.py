"""Run the kernels in Triton's interpreter, which must be chosen before Triton is imported: so in a process of its own.

    TRITON_INTERPRET=1 python -m tests.stages.llm.gpu.interpreted

Writes what was seen of each case as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy
import torch
from triton import language as tl
from triton.runtime import interpreter

from tests.stages.llm.gpu.cases import CASES, CPU
from tests.stages.llm.gpu.checks import see


def mend_products() -> None:
    """Multiply matrices as a GPU does: products of numbers, each element's summed in one order.

    Triton 3.9's interpreter takes the bits of bfloat16 for whole numbers there, and leaves the order to a library, with
    which a row's bits depend on where in the tile it is.
    """

    def numbers(handle: Any) -> Any:
        if handle.dtype.scalar == tl.bfloat16:
            return (handle.data.astype("uint32") << 16).view("float32")
        return handle.data.astype("float32")

    def create_dot(_self: Any, a: Any, b: Any, sums: Any, *_others: Any) -> Any:
        left, right, result = numbers(a), numbers(b), sums.data.copy()
        for k in range(left.shape[1]):
            result += left[:, k, None] * right[None, k]
        return interpreter.TensorHandle(result, sums.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot


def main() -> None:
    """Try all cases."""
    torch.set_num_threads(1)
    mend_products()
    with numpy.errstate(over="ignore"):  # an exponential that is infinite on purpose
        json.dump({name: see(case, CPU)._asdict() for name, case in CASES.items()}, sys.stdout)


if __name__ == "__main__":
    main()
