"""A worker that only speaks the supervisor's language, as it is told: `fake_worker.py FOLDER PIPE`.

The nth that starts behaves as the nth entry of FOLDER/behaviour.json says, those after the last one well. What happens
is noted in FOLDER/events, a line each. Nothing but the standard library, so that it starts in some hundredths of a
second.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

BEAT_S = 0.05


class FakeWorker:
    """Beats from a thread; takes orders in the main one."""

    def __init__(self, folder: Path, beats: int) -> None:
        self.folder, self.beats = folder, beats
        self.number = self._count()
        plans = json.loads((folder / "behaviour.json").read_text())
        self.does: dict[str, Any] = plans[self.number] if self.number < len(plans) else {}
        self.beat: dict[str, Any] = {"type": "beat", "phase": "loading"}
        self.note("start")

    def _count(self) -> int:
        for number in range(1000):
            try:
                os.close(os.open(self.folder / f"start-{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return number
        raise AssertionError("started a thousand times")

    def note(self, *words: object) -> None:
        """Write a line into the events, in one piece."""
        text = " ".join(map(str, (f"{time.time():.4f}", os.getpid(), self.number, *words)))
        with (self.folder / "events").open("a") as events:
            events.write(text + "\n")

    def send(self, word: dict[str, Any]) -> None:
        """Tell the supervisor."""
        os.write(self.beats, json.dumps(word).encode() + b"\n")

    def live(self) -> None:
        """Do what one is told, to the end."""
        does = self.does
        signal.signal(signal.SIGTERM, self.stop)
        for line in does.get("says", ()):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if why := does.get("fails"):
            self.send({"type": "failed", "why": why, "lasting": does.get("lasting", True)})
            sys.exit(1)
        if (status := does.get("exits")) is not None:
            sys.stderr.write(does.get("complaint", "") + "\n")
            sys.exit(status)
        if (loads_s := does.get("loads_s")) and select.select([sys.stdin], [], [], loads_s)[0]:
            sys.exit(1)  # nothing is ordered before it is warm: the supervisor is gone
        threading.Thread(target=self.keep_beating, daemon=True).start()
        self.change(phase="warm")
        for text in sys.stdin:
            self.obey(json.loads(text))
        self.note("orphaned")

    def obey(self, order: dict[str, Any]) -> None:
        """Follow an order."""
        if order["type"] == "measure":
            self.send({"type": "metrics", "text": "# TYPE fake gauge\nfake 1.0\n"})
            return
        identity = order["identity"]
        self.note("twice" if self.taken(identity) else "take", identity)
        if status := self.does.get("dies_taking"):
            os._exit(status)
        self.change(**{"phase": "serving", "parts": ["prompts-0", "prompts-1"], "lag": 0, **self.does.get("beats", {})})

    def taken(self, identity: str) -> bool:
        """Tell whether another that lives has `identity`."""
        for line in (self.folder / "events").read_text().splitlines():
            _, pid, _, what, *rest = line.split()
            if what == "take" and rest == [identity] and lives(int(pid)):
                return True
        return False

    def change(self, **to: Any) -> None:
        """Be something else, and say so."""
        self.beat = {**self.beat, **to}
        if not (self.does.get("silent") and self.beat["phase"] == "serving"):
            self.send(self.beat)

    def keep_beating(self) -> None:
        """Beat regularly."""
        while True:
            time.sleep(BEAT_S)
            if not (self.does.get("silent") and self.beat["phase"] == "serving"):
                self.send(self.beat)

    def stop(self, *_: object) -> None:
        """Drain."""
        self.note("term")
        if self.does.get("stubborn"):
            return
        time.sleep(self.does.get("drains_s", 0.0))
        self.note("drained")
        os._exit(0)


def lives(pid: int) -> bool:
    """Tell whether that process runs: neither gone nor only waiting to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


if __name__ == "__main__":
    FakeWorker(Path(sys.argv[1]), int(sys.argv[2])).live()
