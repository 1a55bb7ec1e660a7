"""Handwritten digits: MNIST's four IDX files, found on disk or fetched.

Owns the format, where the files may be, and that what was fetched is what was meant.
"""

import gzip
import hashlib
import math
import os
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from odeum.errors import DataError
from odeum.files import cache_folder, write_whole
from odeum.types import Tensor

FOLDER_VARIABLE = "ODEUM_DATA"
"""The environment variable that says where data are."""

SOURCES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Where the files can be fetched from, each with the ending ``.gz``."""

CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bfcd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of each file's content, as it is once unpacked."""

_UNSIGNED_BYTES = 0x08
_PATIENCE = 30.0
"""Seconds without an answer after which a source is given up."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Grey images of digits, with what they show.

    Attributes:
        train_images: [60000, 28, 28], 0 (paper) to 255 (ink), uint8; likewise below.
        train_labels: the digits, [60000], int64.
        test_images: [10000, 28, 28].
        test_labels: [10000].
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def mnist(folder: str | Path | None = None) -> Digits:
    """The MNIST digits, from files where there are any, else fetched and kept.

    Looked for in ``folder``; where that is None in the folder that the environment variable
    ``ODEUM_DATA`` names, in its folder ``mnist``, and where fetched files are kept. Each of the
    four files may be packed (``train-images-idx3-ubyte.gz``, ...) or not.

    Args:
        folder: where the four files are.

    Raises:
        DataError: if a file is damaged, or missing and cannot be fetched.

    Source:
        LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition
        (1998).
    """
    kept = cache_folder("mnist")
    if folder is not None:
        places = [Path(folder)]
    else:
        named = os.environ.get(FOLDER_VARIABLE)
        places = [Path(named), Path(named, "mnist")] if named else []
        places.append(kept)
    for place in places:
        if all(_found(place, name) for name in CHECKSUMS):
            return _read(place)
    if folder is not None:
        missing = next(name for name in CHECKSUMS if not _found(places[0], name))
        raise DataError(f"{places[0]} has no file {missing}.gz: give the folder of MNIST's four")
    for name in CHECKSUMS:
        if not _found(kept, name):
            _fetch(name, kept)
    return _read(kept)


def read_idx(path: Path) -> Tensor:
    """An array of bytes from an IDX file, packed or not.

    Args:
        path: the file; one whose name ends in ``.gz`` is unpacked.

    Returns:
        The array in its own shape, uint8.

    Raises:
        DataError: if it cannot be read, is damaged, or holds something else than bytes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(path)
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged and cannot be unpacked ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    n_axes = content[3] if len(content) > 3 else 0
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTES]) or not n_axes:
        raise DataError(f"{path} is no IDX file of bytes: it must begin with 0, 0, 8")
    start = 4 + 4 * n_axes
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(
            f"{path} is damaged: an array of shape {shape} takes {start + math.prod(shape)} bytes, "
            f"it has {len(content)}"
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(values.copy())


def _found(folder: Path, name: str) -> Path | None:
    """The file of that name, packed or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _read(folder: Path) -> Digits:
    arrays = []
    for name in CHECKSUMS:
        path = _found(folder, name)
        assert path is not None
        arrays.append((path, read_idx(path)))
    for (path, images), (beside, labels) in (arrays[:2], arrays[2:]):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{path} holds an array of shape {list(images.shape)} and {beside.name} one of "
                f"{list(labels.shape)}: images are [n, height, width], their labels [n]"
            )
    (_, train_images), (_, train_labels), (_, test_images), (_, test_labels) = arrays
    return Digits(train_images, train_labels.long(), test_images, test_labels.long())


def _fetch(name: str, folder: Path) -> None:
    """Puts a file into a folder, if some source has it whole."""
    reasons = []
    for source in SOURCES:
        try:
            with urllib.request.urlopen(f"{source}{name}.gz", timeout=_PATIENCE) as answer:
                packed = answer.read()
            if hashlib.sha256(gzip.decompress(packed)).hexdigest() != CHECKSUMS[name]:
                raise ValueError("what it sent has another checksum")
        except (OSError, EOFError, ValueError, zlib.error) as error:
            reasons.append(f"{source}: {error}")
            continue
        _keep(packed, folder / f"{name}.gz")
        return
    raise DataError(
        f"{name}.gz was not found and could not be fetched ({'; '.join(reasons)}): give the folder "
        f"of MNIST's four files, with --set data=FOLDER or the variable {FOLDER_VARIABLE}"
    )


def _keep(content: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: part.write_bytes(content))
