"""Kernels on disk: whole or absent, whatever happens to the folder or to those who use it."""

import os
import subprocess
import sys

import pytest

from odeum.compile.runtime import disk


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEUM_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_what_is_written_is_read(folder):
    assert disk.read("key") is None
    assert not disk.holds("key")
    disk.write("key", b"machine code")
    assert disk.read("key") == b"machine code"
    assert disk.holds("key")
    disk.write("key", b"")
    assert disk.read("key") == b""
    assert [entry.name for entry in folder.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:-3] + b"!" + content[-2:],
        lambda content: b"X" + content[1:],
    ],
)
def test_damage_is_noticed(folder, damage):
    disk.write("key", b"machine code")
    (folder / "key").write_bytes(damage((folder / "key").read_bytes()))
    assert disk.read("key") is None
    disk.write("key", b"machine code")
    assert disk.read("key") == b"machine code"


def test_a_folder_that_cannot_be(tmp_path, monkeypatch):
    """Root may write anywhere, but no folder can be where a file is."""
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file", tmp_path / "file" / "kernels"):
        monkeypatch.setenv("ODEUM_CACHE", str(where))
        disk.write("key", b"machine code")
        assert disk.read("key") is None
        assert not disk.holds("key")


def test_a_full_disk(folder, monkeypatch):
    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "write_whole", full)
    disk.write("key", b"machine code")
    assert disk.read("key") is None


def test_what_was_used_last_is_kept(folder, monkeypatch):

    monkeypatch.setattr(disk, "LARGEST_NUMBER", 3)
    for i in range(3):
        disk.write(f"key{i}", b"code")
        os.utime(folder / f"key{i}", (i + 1, i + 1))
    assert disk.read("key0") == b"code"  # used now
    disk.write("key3", b"code")
    assert sorted(entry.name for entry in folder.iterdir()) == ["key0", "key2", "key3"]


KILLED = """
import os, signal
from odeum.compile.runtime import disk

def write_whole(path, write):
    def half(part):
        write(part)
        os.truncate(part, 10)
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, half)

real, disk.write_whole = disk.write_whole, write_whole
disk.write("key", b"machine code")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as POSIX does")
def test_killed_while_writing(folder):
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert disk.read("key") is None
    assert not disk.holds("key")
    disk.write("key", b"machine code")
    assert disk.read("key") == b"machine code"


def test_default_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("ODEUM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert disk.folder() == tmp_path / "odeum" / "kernels"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert disk.folder().parts[-4:] == ("Library", "Caches", "odeum", "kernels")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert disk.folder() == tmp_path / "local" / "odeum" / "kernels"
