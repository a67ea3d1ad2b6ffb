"""Which weights a configuration means, and what identifies them, without reading any tensor.

`weights` in a configuration or on the command line is one of

- `kinetics`: the encoder's published Kinetics-400 weights,
- the name of a released checkpoint (`tsp_core.model.published.released_files`),
- `random:SEED`: drawn as torchvision's constructor draws them after `torch.manual_seed(SEED)`,
- a path or URI of a weights file or checkpoint.

This module does not import torch, so that planning a run stays cheap.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tsp_core import storage
from tsp_core.artifacts import fingerprint_of
from tsp_core.errors import StorageError, WeightsError
from tsp_core.model.published import PublishedFile, file_named, kinetics_file, released_files

PICKLE = b"\x80"
"""How a pickle begins, which PyTorch wrote before 1.6."""
_ARCHIVE = b"PK"  # ZIP, which it has written since


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where weights come from: a seed, or a file.

    Attributes:
        weights: As configured.
        seed: Seed of drawn weights, else None.
        uri: The file, else None.
        sha256_prefix: How its SHA-256 must start, where that is known.
        published: The facts of a published file, for a copy of one too.
    """

    weights: str
    seed: int | None = None
    uri: str | None = None
    sha256_prefix: str | None = None
    published: PublishedFile | None = None

    @property
    def filename(self) -> str:
        """Last part of the file's name."""
        return storage.redact(self.uri or "").rstrip("/").rsplit("/", 1)[-1]

    @property
    def label(self) -> str:
        """What messages call the weights, without secrets that a URI may hold."""
        return f"weights {storage.redact(self.weights)!r}"

    @property
    def fix(self) -> str:
        """What to do when the file cannot be had."""
        if self.published is None:
            return "check the path or URI"
        return (
            f"where {self.published.url} cannot be reached, put {self.published.filename} into a "
            "folder (or below any URI prefix) and set `mirror` (encoder.mirror, --mirror) to it"
        )


def weights_source(
    weights: str,
    encoder: str | None,
    *,
    sha256_prefix: str | None = None,
    mirror: str | None = None,
) -> WeightsSource:
    """Find out what weights are meant.

    Args:
        weights: See the module.
        encoder: Name of the encoder; None where the file is to tell.
        sha256_prefix: Expected start of the file's SHA-256.
        mirror: Folder or URI prefix that holds published files under their published names.

    Raises:
        WeightsError: There are no such weights, or they are of another encoder.
    """
    if encoder is None and (weights == "kinetics" or weights.startswith("random:")):
        raise WeightsError(
            f"weights {weights!r}: name the encoder too (--encoder, encoder=), as in r2plus1d_34"
        )
    if weights.startswith("random:"):
        return WeightsSource(weights=weights, seed=_seed(weights))
    published = _published(weights, encoder)
    if published is not None:
        uri = storage.join(mirror, published.filename) if mirror else published.url
    else:
        _refuse_unknown_name(weights)
        uri = storage.absolute(weights)
        published = file_named(uri.rsplit("/", 1)[-1])
    return WeightsSource(
        weights=weights,
        uri=uri,
        sha256_prefix=sha256_prefix or (published.sha256_prefix if published else None),
        published=published,
    )


def weights_identity(
    weights: str,
    encoder: str | None,
    *,
    sha256_prefix: str | None = None,
    mirror: str | None = None,
) -> str:
    """A string that is equal for equal weights, cheap enough for planning a run.

    The start of the SHA-256 where it is known (of published files, wherever they are fetched from,
    and with `sha256_prefix`; it is verified when they are loaded), the SHA-256 of other local
    files, and a hash of address, size and the store's token for other remote ones. Arguments as of
    `weights_source`.

    Raises:
        WeightsError: There are no such weights.
        StorageUnavailableError: The store of a remote file does not answer.
    """
    source = weights_source(weights, encoder, sha256_prefix=sha256_prefix, mirror=mirror)
    if source.uri is None:
        return f"random:{source.seed}:{encoder}"
    if source.sha256_prefix is not None:
        return f"sha256:{source.sha256_prefix}"
    try:
        if storage.is_local(source.uri):
            return f"sha256:{storage.sha256_of_file(storage.local_path(source.uri))}"
        found = storage.info(source.uri)
    except (OSError, StorageError) as error:
        raise WeightsError(f"{source.label}: cannot read: {error}; {source.fix}") from None
    return f"object:{fingerprint_of([found.uri, found.token])}"


def check_first_bytes(source: WeightsSource) -> None:
    """Find out from its first bytes that a local file holds no weights, such as a saved web page.

    One whose SHA-256 is known is checked when it is used, and need not be there before.

    Raises:
        WeightsError: It begins as no file of PyTorch's does.
    """
    if source.uri is None or source.sha256_prefix is not None:
        return
    if not storage.is_local(source.uri):
        return
    path = storage.local_path(source.uri)
    try:
        with path.open("rb") as file:
            start = file.read(len(_ARCHIVE))
    except OSError as error:
        raise WeightsError(f"{source.label}: cannot read: {error}; {source.fix}") from None
    if not start.startswith((_ARCHIVE, PICKLE)):
        raise WeightsError(
            f"{source.label}: not a weights file: it is neither an archive nor a pickle of "
            "PyTorch; name a checkpoint, or fetch it anew"
        )


def _seed(weights: str) -> int:
    text = weights.removeprefix("random:")
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise WeightsError(
            f"weights {weights!r}: the seed must be a whole number from 0 to 2^63-1, as in "
            "'random:0'"
        )
    return int(text)


def _published(weights: str, encoder: str | None) -> PublishedFile | None:
    if weights == "kinetics":
        assert encoder is not None
        published = kinetics_file(encoder)
        if published is None:
            raise WeightsError(
                f"weights 'kinetics': no Kinetics weights are published for {encoder!r}; "
                "use 'random:SEED' or the path of a checkpoint"
            )
        return published
    published = released_files().get(weights)
    if published is not None and encoder not in (None, published.encoder):
        raise WeightsError(
            f"weights {weights!r}: a checkpoint of {published.encoder}, asked for {encoder}; "
            f"set the encoder to {published.encoder!r} or choose other weights"
        )
    return published


def _refuse_unknown_name(weights: str) -> None:
    """Give a word that is neither a name nor a path the message it deserves."""
    if "/" in weights or "." in weights or storage.exists(weights):
        return
    names = ["kinetics", *released_files(), "random:SEED"]
    close = difflib.get_close_matches(weights, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the names are {', '.join(names)}"
    raise WeightsError(f"weights {weights!r}: neither a file nor a known name; {hint}")
