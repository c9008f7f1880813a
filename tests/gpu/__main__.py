"""Try and time everything that needs a GPU, in a few minutes.

    python -m tests.gpu [--json FILE]         on a machine with a GPU
    python -m tests.gpu --rehearse            on any, with small models: what of it does not need one

Ends with 1 if anything is not as it must be. Nothing is downloaded: models are random, of the shapes of known ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging

from tests.gpu import fast, right
from tests.gpu.report import Finding

VERDICTS = {True: "right", False: "WRONG", None: ""}


def findings(device: torch.device, folder: Path, scale: fast.Scale) -> Iterator[Finding]:
    """All checks, one after another."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor: a rehearsal"
    yield Finding("device", f"{name}, torch {torch.__version__}")
    yield from right.kernels(device)
    yield from right.answers(device, folder)
    yield from right.company(device, folder)
    yield from right.graphs(device, folder)
    yield from fast.attention(device, scale)
    yield from fast.steps(device, folder, scale)


def main() -> int:
    """Check, and tell as it goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the findings there, too")
    parser.add_argument("--rehearse", action="store_true", help="run what can be run without a GPU")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        sys.stderr.write("torch finds no GPU here; look at `nvidia-smi`, or try --rehearse\n")
        return 2
    logging.disable_progress_bar()
    device = torch.device("cpu" if options.rehearse else "cuda")
    console = Console(highlight=False, soft_wrap=True)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in findings(device, Path(folder), fast.REHEARSAL if options.rehearse else fast.REAL):
            found.append(one)
            console.print(f"{VERDICTS[one.right]:6}{one.what}: {one.seen}", markup=False)
    if options.json:
        options.json.write_text(json.dumps([one._asdict() for one in found], indent=1))
    return int(any(one.right is False for one in found))


if __name__ == "__main__":
    sys.exit(main())
