import pytest
import torch

from odeum.errors import InputError
from odeum.files import write_whole
from odeum.lab import directory


def test_a_file_in_place_of_the_folder_is_told_in_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        write_whole(tmp_path / "file" / "x", lambda part: part.write_text("new"))


def test_ctrl_c_wins_over_the_error_it_leads_to_and_the_old_file_stays(tmp_path):
    class Interrupted:
        """Pickling it is where Ctrl-C arrives: the archive is half written then."""

        def __reduce__(self):
            raise KeyboardInterrupt

    def write(part):
        try:
            torch.save({"weights": torch.ones(9), "then": Interrupted()}, part)
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_writer_are_its_own(tmp_path):
    def write(part):
        part.write_text("half")
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        write_whole(tmp_path / "a", write)
    assert list(tmp_path.iterdir()) == []


def test_numbered_folders_are_made_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [directory.make_numbered("lynx & hare") for _ in range(2)]
    assert [str(folder) for folder in found] == ["runs/lynx-hare-1", "runs/lynx-hare-2"]
    assert all(folder.is_dir() for folder in found)
