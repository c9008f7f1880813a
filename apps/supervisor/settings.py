"""How a supervisor keeps its workers alive. Knows no process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class SupervisorSettings:
    """How a supervisor keeps a stage's workers alive."""

    replicas: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Workers that share a stage's partitions under one supervisor; 0 is no supervisor: the process works itself."""
    standby: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Further workers, with everything loaded, one of which takes a dead one's place at once."""
    name: str = ""
    """What tells its workers' ids from those of other supervisors of the same stage; none is the host's name. It must
    stay the same over restarts, or each of them costs a rebalance."""
    silent_s: Seconds = 5.0
    """Seconds without a heartbeat after which a worker is killed and replaced; less than Kafka's session timeout, so
    that nothing is rebalanced meanwhile."""
    load_s: Seconds = 600.0
    """The same while it loads its libraries and its model."""
    step_s: Seconds = 60.0
    """Seconds that a model may be in one step before its worker is killed and replaced."""
    stalled_s: Seconds = 30.0
    """Seconds that a worker with nothing in hand may take nothing although records wait, before it is killed and
    replaced."""
    first_s: Seconds = 1.0
    """Seconds to wait before the third start in a row of what keeps dying; each further wait is twice as long."""
    most_s: Seconds = 30.0
    """The longest such wait."""
    settled_s: Seconds = 10.0
    """Seconds of life after which a worker's death is not one in a row."""
