"""The simplest protocol: a line of text in; pieces of text out, then `<END>`. Knows no session and no socket.

Each text frame that the client sends is one line, and each line is answered by exactly one `<END>`. What goes wrong is
told in one frame before it: `<ERROR code: message>`. Lines that come while an answer is under way are answered after
it.

A client that wants to come back to where it was asks for `?last=`: each frame then begins with an id and a space, and
`?last=ID` of the last frame that it has got brings all that came after that, and nothing twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from apps.gateway.commands import Command, Say
from apps.gateway.refusal import Refusal

END = "<END>"
MARK = re.compile(r"<END>|<ERROR .*>", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")


Aside = Callable[[str, int], str]
"""The id of the so-manieth part of an event, from the event's id."""


class Chat:
    """Reads and writes the frames of one connection. `longest` is the size of a line in characters.

    With an `aside` each frame has its id; the first `skip` are left out, because the client has got them.
    """

    name = "chat"

    def __init__(self, *, longest: int, aside: Aside | None = None) -> None:
        self._longest = longest
        self._aside, self.skip = aside, 0
        self.resumable = aside is not None

    def receive(self, frame: str | bytes) -> Command:
        """The line in a frame.

        Raises:
            Refusal: it is none.
        """
        if isinstance(frame, bytes):
            raise Refusal("invalid_frame", "a line is sent as a text frame; this one is binary")
        if len(frame) > self._longest:
            raise Refusal(
                "message_too_large", f"the line has {len(frame)} characters; at most {self._longest} are read"
            )
        return Say(text=frame.rstrip("\r\n"))

    def frames(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """The frames for some events, most of which need none."""
        return [frame for event in events for frame in self._marked(event)]

    def complaint(self, refusal: Refusal, event_id: str | None = None) -> list[str]:
        """What to send about a line that no session is there for."""
        frames = [_error({"code": refusal.code, "message": refusal.message}), END]
        return [f"{event_id or ''} {frame}" for frame in frames] if self.resumable else frames

    def _marked(self, event: Mapping[str, Any]) -> Iterator[str]:
        """The frames of an event; the last one has its id, those before it one that tells how many there were."""
        frames = list(_frames(event))
        if self._aside is None:
            yield from frames
            return
        for number, frame in enumerate(frames, start=1):
            if self.skip:
                self.skip -= 1
                continue
            whole = number == len(frames)
            event_id = event["event_id"] if whole else self._aside(event["event_id"], number)
            yield f"{event_id} {frame}"


def _frames(event: Mapping[str, Any]) -> Iterator[str]:
    kind = event["type"]
    if kind == "response.output_text.delta":
        yield from _text(event["delta"])
    elif kind == "response.done":
        if error := (event["response"]["status_details"] or {}).get("error"):
            yield _error(error)
        yield END
    elif kind == "error":
        yield _error(event["error"])
        yield END


def _text(text: str) -> Iterator[str]:
    """`text`, in two frames where one would look like one of ours."""
    if MARK.fullmatch(text):
        yield text[:1]
        text = text[1:]
    yield text


def _error(error: Mapping[str, Any]) -> str:
    return f"<ERROR {error['code']}: {error['message']}>"
