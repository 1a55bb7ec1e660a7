import gzip
import hashlib
import importlib

import pytest
import torch

from odeum.datasets import mnist
from odeum.datasets.mnist import CHECKSUMS, read_idx
from odeum.errors import DataError

# The module, not the function of its name that odeum.datasets offers.
module = importlib.import_module("odeum.datasets.mnist")


def idx(values):
    values = torch.as_tensor(values, dtype=torch.uint8)
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.numpy().tobytes()


def contents():
    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for part, n in (("train", 6), ("t10k", 3)):
        arrays[f"{part}-images-idx3-ubyte"] = torch.randint(
            256, (n, 4, 5), generator=generator, dtype=torch.uint8
        )
        arrays[f"{part}-labels-idx1-ubyte"] = torch.arange(n) % 10
    return arrays


def write(folder, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in contents().items():
        content = idx(values)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """Neither the user's data nor the network."""
    monkeypatch.delenv("ODEUM_DATA", raising=False)
    monkeypatch.setattr(module, "cache_folder", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(module, "SOURCES", ())


@pytest.mark.parametrize("packed", [True, False])
def test_reads_the_four_files(tmp_path, packed):
    digits = mnist(write(tmp_path / "data", packed))
    expected = contents()
    assert torch.equal(digits.train_images, expected["train-images-idx3-ubyte"])
    assert torch.equal(digits.test_images, expected["t10k-images-idx3-ubyte"])
    assert digits.train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert digits.test_labels.tolist() == [0, 1, 2]
    assert digits.train_labels.dtype == torch.int64


@pytest.mark.parametrize("below", [".", "mnist"])
def test_the_environment_says_where(tmp_path, monkeypatch, below):
    write(tmp_path / "data" / below)
    monkeypatch.setenv("ODEUM_DATA", str(tmp_path / "data"))
    assert len(mnist().train_images) == 6


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda x: x[:-20], "damaged and cannot be unpacked"),
        ("train-images-idx3-ubyte.gz", lambda x: b"<html>", "damaged and cannot be unpacked"),
        ("t10k-labels-idx1-ubyte.gz", lambda x: gzip.compress(idx([1, 2])), r"\[3, 4, 5\].*\[2\]"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda x: gzip.compress(gzip.decompress(x)[:-1]),
            "takes 11 bytes, it has 10",
        ),
        ("t10k-labels-idx1-ubyte.gz", lambda x: gzip.compress(b"\0\0\x0d\1"), "no IDX file"),
        ("t10k-labels-idx1-ubyte.gz", lambda x: gzip.compress(b""), "no IDX file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, change, message):
    folder = write(tmp_path / "data")
    path = folder / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        mnist(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    folder = write(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"has no file t10k-labels-idx1-ubyte\.gz"):
        mnist(folder)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "absent")


def served(tmp_path, monkeypatch, *, right):
    """A source whose files have the checksums, or not."""
    source = write(tmp_path / "source")
    monkeypatch.setattr(module, "SOURCES", (f"file://{tmp_path}/nothing/", f"file://{source}/"))
    if right:
        sums = {
            name: hashlib.sha256(idx(values)).hexdigest() for name, values in contents().items()
        }
        monkeypatch.setattr(module, "CHECKSUMS", {name: sums[name] for name in CHECKSUMS})


def test_what_is_missing_is_fetched_once(tmp_path, monkeypatch):
    served(tmp_path, monkeypatch, right=True)
    assert len(mnist().test_images) == 3
    kept = tmp_path / "cache" / "mnist"
    assert sorted(path.name for path in kept.iterdir()) == sorted(f"{n}.gz" for n in CHECKSUMS)
    monkeypatch.setattr(module, "SOURCES", ())
    assert len(mnist().test_images) == 3


def test_what_has_another_checksum_is_not_kept(tmp_path, monkeypatch):
    served(tmp_path, monkeypatch, right=False)
    with pytest.raises(DataError, match=r"another checksum.*--set data=FOLDER"):
        mnist()
    assert not (tmp_path / "cache").exists()


def test_without_files_or_network_one_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEUM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"could not be fetched.*variable ODEUM_DATA"):
        mnist()
