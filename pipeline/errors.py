"""Every error that Penstock raises on purpose.

    PenstockError
    ├── TurnRejected           a refusal: goes to the client at once, never retried
    │   ├── EmptyTurn
    │   ├── PromptTooLong
    │   ├── TooFewBlocks
    │   ├── UnknownModel
    │   ├── InvalidParameter
    │   ├── NoRecogniser
    │   └── Overloaded
    ├── Retriable              a retry can mend it
    │   ├── BusUnavailable
    │   └── EngineUnavailable
    ├── MessageTooLarge
    ├── NothingSettled
    ├── SynthesisFailed
    ├── UndecodableMessage
    ├── TopicMissing
    ├── TopicMismatch
    ├── OwnershipLost
    ├── SettingsError
    ├── ModelLoadError
    ├── AddressInUse
    ├── WorkersFailed
    ├── SupervisorRunning
    ├── FolderUnsafe
    └── KeyUnknown

A `TurnRejected` carries a `code` that clients can act on; everything else is loud.
"""

from __future__ import annotations


class PenstockError(Exception):
    """The root of every error raised on purpose."""


class TurnRejected(PenstockError):
    """A turn that will not be answered, with a `code` for programs and a message for people."""

    code = "turn_rejected"
    param: str | None = None


class EmptyTurn(TurnRejected):
    """A turn without anything to answer."""

    code = "empty_turn"

    def __init__(self) -> None:
        super().__init__("the conversation holds no text to answer; send a message first")


class PromptTooLong(TurnRejected):
    """A prompt of `got` tokens where at most `limit` fit."""

    code = "context_length_exceeded"

    def __init__(self, *, got: int, limit: int) -> None:
        super().__init__(f"the prompt has {got} tokens, but at most {limit} fit into the model's context; shorten it")
        self.got, self.limit = got, limit


class TooFewBlocks(TurnRejected):
    """A prompt of `got` tokens where there is memory for the keys and values of at most `limit`."""

    code = "context_length_exceeded"

    def __init__(self, *, got: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {got} tokens, but there is memory for the keys and values of only {limit}; "
            "shorten it, or set model.kv_mb higher"
        )
        self.got, self.limit = got, limit


class UnknownModel(TurnRejected):
    """A model name that is not served here."""

    code = "model_not_found"
    param = "model"

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        super().__init__(f"model {name!r} is not served here; served: {', '.join(known)}")
        self.name, self.known = name, known


class InvalidParameter(TurnRejected):
    """A parameter whose value cannot be honoured."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"{param}: {why}")
        self.param, self.why = param, why


class NoRecogniser(TurnRejected):
    """Speech where no model is loaded that could recognise it."""

    code = "transcription_unavailable"

    def __init__(self) -> None:
        super().__init__("no speech recognition model is loaded here; whoever runs the server names one with --asr")


class Overloaded(TurnRejected):
    """No room now; `retry_after` seconds say when to come back."""

    code = "overloaded"

    def __init__(self, what: str, *, retry_after: float) -> None:
        super().__init__(f"{what}; try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class Retriable(PenstockError):
    """An error that a later attempt may not meet."""


class BusUnavailable(Retriable):
    """The bus cannot be reached, or does not answer in time."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"Kafka at {where} cannot be reached: {why}")
        self.where, self.why = where, why


class EngineUnavailable(Retriable):
    """The engine cannot serve now: it is stopping, or its model thread has died."""


class MessageTooLarge(PenstockError):
    """A message of `size` bytes where the topic takes at most `limit`."""

    def __init__(self, topic: str, *, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is too large for topic {topic!r}, which takes at most {limit}")
        self.topic, self.size, self.limit = topic, size, limit


class NothingSettled(PenstockError):
    """An open-ended stream of which `read` bytes were read and not settled, where at most `limit` may be held."""

    def __init__(self, stage: str, *, read: int, limit: int) -> None:
        super().__init__(
            f"stage {stage!r} has read {read} bytes of a stream without settling any, and may hold at most {limit}; "
            "settle more often, or give the stage more (Stage.unsettled)"
        )
        self.stage, self.read, self.limit = stage, read, limit


class SynthesisFailed(PenstockError):
    """Text that could not be spoken. What is said of it may be told to clients."""


class UndecodableMessage(PenstockError):
    """Bytes on a topic that are none of its messages."""

    def __init__(self, topic: str, why: str) -> None:
        super().__init__(f"a record on topic {topic!r} is none of its messages: {why}")
        self.topic, self.why = topic, why


class TopicMissing(PenstockError):
    """A topic that the route needs does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist; create the route with `penstock topics create`")
        self.topic = topic


class TopicMismatch(PenstockError):
    """Two topics that must have the same number of partitions, and have not."""

    def __init__(self, topic: str, partitions: int, other: str, other_partitions: int) -> None:
        super().__init__(
            f"topic {topic!r} has {partitions} partitions and {other!r} has {other_partitions}; "
            "they must have the same number, so that a takeover finds what was already published"
        )


class OwnershipLost(PenstockError):
    """This group member is no longer the owner of what it works on: fenced, or timed out."""

    def __init__(self, group: str, why: str) -> None:
        super().__init__(f"no longer a member of group {group!r}: {why}")
        self.group, self.why = group, why


class SettingsError(PenstockError):
    """A setting that is unknown or has a value it cannot have; `name` says which."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"setting {name!r}: {why}")
        self.name, self.why = name, why


class ModelLoadError(PenstockError):
    """A model that cannot be loaded from `source`."""

    def __init__(self, source: str, why: str) -> None:
        super().__init__(f"cannot load the model {source!r}: {why}")
        self.source, self.why = source, why


class AddressInUse(PenstockError):
    """The address to listen on is taken by another program."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is in use by another program; stop it, or choose another with --port")
        self.host, self.port = host, port


class WorkersFailed(PenstockError):
    """Not one worker of a supervisor could start, all of them for the same lasting reason."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no worker can start: {why}")
        self.why = why


class SupervisorRunning(PenstockError):
    """A supervisor of the same name, or a worker that it left behind, is alive."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a supervisor of {name!r} runs on this machine (`penstock status` shows it), and two cannot share their "
            "workers' ids; stop it, or give this one another name with --set supervisor.name=..."
        )
        self.name = name


class FolderUnsafe(PenstockError):
    """A folder in which others could put something."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} must be a folder of this user alone (mode 0700); remove it, or mend that")
        self.path = path


class KeyUnknown(PenstockError):
    """No API key with this id lets anybody in."""

    def __init__(self, key_id: str, where: str) -> None:
        super().__init__(f"no key {key_id!r} is valid in {where}; `penstock keys list` shows the ids")
        self.key_id, self.where = key_id, where
