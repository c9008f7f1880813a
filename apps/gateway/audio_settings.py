"""What can be set of sound at the gateway, with its defaults: the table `[gateway.audio]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Speed = Annotated[float, Meta(ge=1)]


@dataclass(frozen=True)
class AudioSettings:
    """Audio in and out."""

    hears: bool = False
    """Whether there is a speech stage; without one, audio is refused in words. `penstock up` sees to it by itself."""

    speaks: bool = False
    """Whether there is a speak stage. Answers are then spoken where a session does not ask for text; without one they
    are text, whatever was asked for."""

    max_append_bytes: Count = 15 * 1024 * 1024
    """Audio of one event (decoded); more is refused with a typed error."""

    speed: Speed = 10.0
    """How many times faster than it is heard a session's audio may go on, as from a file; what comes faster waits with
    its sender."""

    ahead_s: Seconds = 60.0
    """Seconds of audio that go on at once before that holds."""

    address_speed: Speed = 1000.0
    """The same for all sessions of one address together."""

    address_ahead_s: Seconds = 6000.0
    """Seconds of audio that go on at once of one address."""

    idle_s: Seconds = 10.0
    """Seconds without audio after which speech that has begun is taken to have ended. Less than the speech stage waits
    for more."""

    transcript_timeout_s: Seconds = 30.0
    """Seconds after the end of what was said until its transcript must be there; then it has failed."""

    speech_patience_s: Seconds = 20.0
    """Seconds that the next piece of a spoken answer may take once its text is there; then the answer has failed."""
