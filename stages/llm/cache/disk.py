"""The tier on disk: what the host pool has no room for, and what it holds at the end; a restart finds it again.

One file for each scope. A thread of its own writes, behind; the model's thread only reads, and only where that takes
less than computing anew. The draft's keys and values are kept with the model's: they add a quarter to the file, and
without them the first token came half as late again. A cache may forget, and never fails: a damaged file is a miss and
is removed, and a disk that is full or cannot be written turns the tier off.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages.llm.cache import kvfile
from stages.llm.cache.folder import Folder
from stages.llm.cache.kv import BLOCK, Kept, common
from stages.llm.models.model import LoadedModel

log = logging.getLogger(__name__)

LEAST = BLOCK
"""Tokens below which nothing is kept: they cost about one step, and would be many small files."""
WAITING_BYTES = 64 << 20
"""What may wait to be written, beside the one that is being written; more is dropped. A larger one may wait alone."""
CLOSE_S = 3.0
"""What writing may take at the end."""
FILE_S, BYTE_S = 1e-3, 1e-9
"""Seconds that reading takes for a file and, until it was measured, for each of its bytes."""
SMOOTHING, FORGETTING = 0.2, 0.99
"""How much the latest reading counts, and how a slow one is forgotten while none pays."""


@dataclass
class Counts:
    """What has happened so far. `lost`: dropped because too much was waiting; `damaged`: files refused and removed."""

    hits: int = 0
    loaded_tokens: int = 0
    loaded_bytes: int = 0
    written: int = 0
    written_bytes: int = 0
    lost: int = 0
    damaged: int = 0


class DiskCache:
    """At most `limit` bytes in `folder`, for `model` and its `draft`; see `Tier`."""

    def __init__(self, folder: Path, limit: int, model: LoadedModel, draft: LoadedModel | None = None) -> None:
        self.counts = Counts()
        self.on = False
        """Whether anything is read or written."""
        self._folder = Folder(folder, limit)
        self._fingerprint = kvfile.fingerprint([model.revision, draft.revision if draft else ""])
        self._token_s, self._byte_s = 0.0, BYTE_S
        self._waiting: OrderedDict[str, Kept] = OrderedDict()
        self._more = threading.Condition()
        self._ends: float | None = None
        self._thread = threading.Thread(target=self._live, name="penstock-disk", daemon=True)

    def open(self, token_s: float) -> None:
        """Look at what is there, and begin. To compute one more token of a prompt takes `token_s`."""
        self._token_s = token_s
        self.on = True
        try:
            self._folder.open()
        except OSError as error:
            self._turn_off(error)
        else:
            self._thread.start()

    def close(self, seconds: float = CLOSE_S) -> None:
        """Write what is waiting, for so long at most."""
        with self._more:
            self._ends = time.monotonic() + seconds
            self._more.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        with self._more:
            self.on = False
            left = len(self._waiting) + self._thread.is_alive()
            self._waiting.clear()
        if left:
            log.warning("%d sessions' keys and values were not written to %s in time", left, self._folder.path)
        log.info("the disk cache %s: %s", self._folder.path, self.counts)

    def put(self, scope: str, kept: Kept) -> None:
        """Write `kept` soon, unless too much is waiting."""
        with self._more:
            self._waiting.pop(scope, None)
            waiting = sum(other.bytes for other in self._waiting.values())
            if waiting and waiting + kept.bytes > WAITING_BYTES:
                self.counts.lost += 1
            else:
                self._add(scope, kept)

    def put_last(self, last: Iterable[tuple[str, Kept]]) -> None:
        """Write all these before the end, if there is time: their memory is held already."""
        with self._more:
            for scope, kept in last:
                self._add(scope, kept)

    def take(self, scope: str, ids: Sequence[int], known: int = 0) -> Kept | None:
        """What was last kept of the scope, if it is still waiting or reading it pays; `known` ids are not needed."""
        if len(ids) - known <= LEAST:  # the usual next turn, whose session is still in memory
            return None
        name = self._name(scope)
        with self._more:
            kept = self._waiting.get(scope)
            if kept is not None and common(kept.ids, ids[:-1]) > known:
                return self._waiting.pop(scope)
        if kept is not None or name not in self._folder:
            return None
        try:
            return self._read(name, ids, known)
        except FileNotFoundError:  # another process has dropped it
            self._folder.remove(name)
        except (OSError, kvfile.Damaged) as error:
            log.info("%s is not used: %s", self._folder.path / name, error)
            self.counts.damaged += 1
            self._folder.remove(name)
        except Exception as error:  # no memory, say: the answer can be computed
            log.exception("reading keys and values failed")
            self._turn_off(error)
        return None

    def _add(self, scope: str, kept: Kept) -> None:
        tokens, size = len(kept.ids), kept.bytes
        if self.on and tokens >= LEAST and size <= self._folder.limit and self._pays(tokens, size):
            self._waiting[scope] = kept
            self._more.notify()

    def _pays(self, tokens: int, size: int) -> bool:
        """Whether to read so many bytes takes less than to compute so many tokens."""
        if tokens * self._token_s > FILE_S + size * self._byte_s:
            return True
        self._byte_s *= FORGETTING
        return False

    def _read(self, name: str, ids: Sequence[int], known: int) -> Kept | None:
        began = time.perf_counter()
        with (self._folder.path / name).open("rb") as file:
            stored = kvfile.Stored(file, self._fingerprint)
            shared = common(stored.ids, ids[:-1])
            if shared - known < LEAST or not self._pays(shared - known, stored.size):
                return None
            kept = stored.load()
        self._byte_s += SMOOTHING * ((time.perf_counter() - began) / stored.size - self._byte_s)
        self.counts.hits += 1
        self.counts.loaded_tokens += shared - known
        self.counts.loaded_bytes += stored.size
        self._folder.use(name)
        return kept

    def _name(self, scope: str) -> str:
        """The scope's file. It tells nobody the session's name, and models do not take each other's files away."""
        return hashlib.blake2b(scope.encode(), key=self._fingerprint, digest_size=16).hexdigest() + ".kv"

    def _live(self) -> None:
        """What the thread does until `close`."""
        try:
            while self._write_next():
                pass
        except OSError as error:
            self._turn_off(error)
        except Exception as error:  # whatever a device or a library raises: answers do without this
            log.exception("writing keys and values failed")
            self._turn_off(error)

    def _write_next(self) -> bool:
        """Wait for something to write, and write it. False: it is the end."""
        with self._more:
            self._more.wait_for(lambda: self._waiting or self._ends is not None)
            if not self._waiting or (self._ends is not None and time.monotonic() > self._ends):
                return False
            scope, kept = self._waiting.popitem(last=False)
        write = partial(kvfile.write, fingerprint=self._fingerprint, kept=kept)
        self.counts.written_bytes += self._folder.add(self._name(scope), write, used=kept.used)
        self.counts.written += 1
        return True

    def _turn_off(self, why: Exception) -> None:
        with self._more:
            self.on = False
            self._waiting.clear()
        self._folder.forget()
        log.warning("the disk cache %s is off from now on: %s", self._folder.path, why)
