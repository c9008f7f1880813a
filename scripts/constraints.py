"""Print the versions installed in this environment as pip constraints, one `name==version` a line.

Run as `make constraints` after the tests have passed with newer versions. Only what the project's requirements lead to
is written, so a developer's own tools stay out, and so do the packages that exist for one platform alone (CUDA's
libraries, which torch pins by itself): the file then serves every platform and Python that the project supports.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "penstock"
EXTRAS = ("dev", "bench", "bench-voice")
ONE_PLATFORM = ("nvidia-", "cuda-", "triton")


def installed(name: str) -> Distribution | None:
    """Return the distribution `name`, or None where this platform has no use for it."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def wanted(dist: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """List the requirements of `dist` that apply here with `extras`."""
    requirements = [Requirement(line) for line in dist.requires or ()]
    environments = [{"extra": extra} for extra in ("", *extras)]
    return [r for r in requirements if r.marker is None or any(r.marker.evaluate(e) for e in environments)]


def closure() -> dict[str, str]:
    """Map each package that the project leads to onto its installed version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(PROJECT, frozenset(EXTRAS))]
    while todo:
        name, extras = todo.pop()
        dist = installed(name)
        if dist is None or (name, extras) in seen or name.startswith(ONE_PLATFORM):
            continue
        seen.add((name, extras))
        found[name] = dist.version.partition("+")[0]  # "+cu130" names a build, which not every platform has
        todo += [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted(dist, extras)]
    del found[PROJECT]
    return found


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(closure().items()))
