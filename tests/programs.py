"""The programs outside Python that the tests need: which are missing, and how they come.

On Debian as root they are installed; anywhere else the error names them and the cure. An address or path given in the
environment stands for the program, and a Docker daemon for all servers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

JAVA_LEAST = 17
COMPILERS = ("c++", "g++", "clang++")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_DEADLINE_S = 900
LOCK_DEADLINE_S = 300


class ProgramMissing(Exception):
    """A program is not here; the text names it and says how to get it."""


class Need(NamedTuple):
    """A program: what it is called, its Debian packages, the variable that stands for it, and whether it is here."""

    name: str
    packages: tuple[str, ...]
    variable: str
    here: Callable[[], bool]
    in_docker: bool = True

    def met(self) -> bool:
        """Tell whether it, or a substitute, is here."""
        return bool(os.environ.get(self.variable)) or self.here() or (self.in_docker and docker_ready())


def on_path(name: str) -> bool:
    """Tell whether the program `name` is on the PATH."""
    return shutil.which(name) is not None


def java_version() -> int | None:
    """Return the major version of the `java` on the PATH, or None."""
    if shutil.which("java") is None:
        return None
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else None


def java_ready() -> bool:
    """Tell whether the `java` on the PATH can run the broker."""
    return (java_version() or 0) >= JAVA_LEAST


def docker_ready() -> bool:
    """Tell whether a Docker daemon answers."""
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def chromium_path() -> str | None:
    """Return the browser: `CHROMIUM` if set, else the first known name on the PATH."""
    if given := os.environ.get("CHROMIUM"):
        return given
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


NEEDS = {
    "java": Need(f"Java {JAVA_LEAST} or later", ("default-jre-headless",), "KAFKA_BOOTSTRAP_SERVERS", java_ready),
    "maven": Need("Maven", ("maven",), "KAFKA_BOOTSTRAP_SERVERS", lambda: on_path("mvn")),
    "redis": Need("redis-server", ("redis-server",), "REDIS_URL", lambda: on_path("redis-server")),
    "compiler": Need("a C++ compiler", ("g++",), "CXX", lambda: any(map(on_path, COMPILERS)), in_docker=False),
    "chromium": Need(
        "Chromium", ("chromium", "fonts-liberation"), "CHROMIUM", lambda: chromium_path() is not None, in_docker=False
    ),
}


def missing(*names: str) -> list[Need]:
    """List what is not here, of `names` or of all."""
    return [need for name, need in NEEDS.items() if name in (names or NEEDS) and not need.met()]


def cure(*names: str) -> str:
    """Say what is missing, of `names` or of all, and how to get it."""
    needs = missing(*names)
    packages = " ".join(package for need in needs for package in need.packages)
    return (
        f"missing: {', '.join(need.name for need in needs)}.\n"
        f"  Debian, Ubuntu: apt-get install {packages}   (as root, `make test` does it by itself)\n"
        "  elsewhere: your package manager has them; a Docker daemon does in place of Java, Maven and redis-server\n"
        "  or name what runs already: KAFKA_BOOTSTRAP_SERVERS=host:port REDIS_URL=redis://host:port CHROMIUM=/path\n"
        "  or leave those tests out, visibly: SERVICES=none make test"
    )


def can_install() -> bool:
    """Tell whether this is Debian, and we are root."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(needs: list[Need]) -> None:
    """Install the packages of `needs` with apt.

    Raises:
        ProgramMissing: apt could not, or what it brought does not do (an old Java).
    """
    packages = [package for need in needs for package in need.packages]
    _apt("update")
    _apt("install", "-y", "--no-install-recommends", *packages)
    if missing():
        raise ProgramMissing(cure())


def _apt(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_DEADLINE_S}", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_DEADLINE_S,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise ProgramMissing(f"apt-get {' '.join(arguments)} failed:\n{said}\n{cure()}")


def ensure() -> list[str]:
    """Install what is missing and return its names, or say what it is.

    Raises:
        ProgramMissing: Something is, and we may not install it.
    """
    needs = missing()
    if needs and not can_install():
        raise ProgramMissing(cure())
    if needs:
        install(needs)
    return [need.name for need in needs]
