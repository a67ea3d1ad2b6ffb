"""The errors of the project, and which of them are worth a retry.

::

    TspError
    ├── PermanentError            trying again cannot help: fix the input
    │   ├── ConfigError           the configuration: names the file, the key, the value
    │   ├── AnnotationError       an annotation file: names the file, the row, the value
    │   ├── VideoError            one video: it is quarantined, the run goes on
    │   ├── TooManyBadVideosError more than `max_bad_fraction` of the videos are quarantined
    │   ├── WeightsError          weights or a checkpoint: unreadable, wrong encoder, wrong hash
    │   ├── GvfError              global video features: wrong size, a missing video
    │   ├── ArtifactError         a published artifact: missing, unknown schema, damaged
    │   ├── TrainingError         training cannot go on (a loss that is not finite, ...)
    │   └── StorageError          the store refuses: no permission, disk full
    │       └── ObjectNotFoundError  no such object
    └── TransientError            trying again later may help
        ├── StorageUnavailableError  time-outs, resets, 5xx, slow-down
        └── WorkerLostError       a worker process died or was killed

Every message names the parameter or file, the value received and the fix. Tasks retry transient
errors only (`tasks/policy.py`).
"""

from __future__ import annotations


class TspError(Exception):
    """Base of all errors that this project raises on purpose."""


class PermanentError(TspError):
    """Trying again cannot help."""


class TransientError(TspError):
    """Trying again later may help."""


class ConfigError(PermanentError, ValueError):
    """The configuration is wrong; the message names the file, the key and the value."""


class AnnotationError(PermanentError, ValueError):
    """An annotation or metadata file is wrong; the message names the file and the place in it."""


class VideoError(PermanentError):
    """One video cannot be used; it is quarantined with this reason and the run goes on.

    Args:
        code: One of the short, stable words of `tsp_core.schemas.QUARANTINE_CODES`.
        reason: A sentence for people.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class TooManyBadVideosError(PermanentError):
    """More than the allowed fraction of the videos are quarantined."""


class WeightsError(PermanentError, ValueError):
    """Weights or a checkpoint cannot be used."""


class NoHeadsError(WeightsError):
    """Weights hold an encoder without heads of this method."""


class FeaturesError(PermanentError):
    """An encoder gives features that cannot be used."""


class GvfError(PermanentError, ValueError):
    """Global video features do not fit the encoder or lack a video."""


class ArtifactError(PermanentError):
    """A published artifact is missing, of an unknown schema, or not what its marker says."""


class TrainingError(PermanentError):
    """Training cannot go on."""


class StorageError(PermanentError):
    """The store refuses for good: no such object, no permission, no space."""


class ObjectNotFoundError(StorageError):
    """There is no such object."""


class StorageUnavailableError(TransientError):
    """The store does not answer now."""


class WorkerLostError(TransientError):
    """A worker process died or was killed before it finished."""


def is_transient(error: BaseException) -> bool:
    """Tell whether a retry can help."""
    return isinstance(error, TransientError)
