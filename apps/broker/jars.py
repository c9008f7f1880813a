"""Kafka's official jars, fetched once through Maven into a cache folder that all checkouts share.

Two runs at once wait for each other; a download that broke off leaves nothing that counts as one.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PenstockError
from stages.usercache import user_cache

KAFKA = "4.1.1"
LOG4J = "2.24.3"
DEADLINE_S = 300.0
ATTEMPTS = 3
LISTING = "jars.txt"

DEPENDENCIES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.logging.log4j", "log4j-core", LOG4J),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),  # for slf4j 1.7, which this Kafka uses
)


class JarsMissing(PenstockError):
    """Kafka's jars are not here, and cannot be fetched; the text says why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the jars of Kafka {KAFKA} are not in {cache_folder()}: {why}")
        self.why = why


def cache_folder() -> Path:
    """Return where the jars lie."""
    name = f"kafka-{KAFKA}"
    return user_cache(name) or Path(tempfile.gettempdir()) / f"penstock-{name}"


def complete(folder: Path) -> bool:
    """Tell whether every jar of the listing is in `folder` with its full size."""
    try:
        rows = [line.split() for line in (folder / LISTING).read_text().splitlines()]
        return bool(rows) and all((folder / name).stat().st_size == int(size) for name, size in rows)
    except FileNotFoundError:
        return False


def kafka_jars() -> Path:
    """Return the folder of the jars, after fetching them if need be.

    Raises:
        JarsMissing: They are not here, and cannot be fetched.
    """
    folder = cache_folder()
    if complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock")):
        if not complete(folder):  # another run may have fetched them while we waited
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise JarsMissing("Maven is not here to fetch them; install maven (and a Java of at least 17)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as work:
        fresh = Path(work) / "jars"
        _copy_dependencies(Path(work), fresh)
        jars = sorted(fresh.glob("*.jar"))
        (fresh / LISTING).write_text("".join(f"{jar.name} {jar.stat().st_size}\n" for jar in jars))
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _copy_dependencies(work: Path, into: Path) -> None:
    (work / "pom.xml").write_text(_pom())
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={into}"]
    output = ""
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        if done.returncode == 0:
            return
        output = done.stdout + done.stderr
    raise JarsMissing(f"Maven could not fetch them in {ATTEMPTS} attempts:\n{output[-2000:]}")


def _pom() -> str:
    rows = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in DEPENDENCIES
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>penstock</groupId><artifactId>kafka</artifactId><version>1</version>"
        f"<dependencies>{rows}</dependencies></project>"
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + DEADLINE_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another run has held {path} for {DEADLINE_S:.0f} s") from None
                time.sleep(0.1)
        yield
