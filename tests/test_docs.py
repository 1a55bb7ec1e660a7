"""Every Python block of the README runs, one after the other."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


@pytest.mark.parametrize("number", range(len(blocks(ROOT / "README.md"))))
def test_readme(number, tmp_path, monkeypatch):
    torch.set_default_dtype(torch.float32)  # as a reader has it
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(ROOT / "README.md")[number], f"README block {number}", "exec"), {})
