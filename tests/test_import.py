"""Importing odeum loads torch and nothing else that is heavy."""

import subprocess
import sys

HEAVY = ["pandas", "matplotlib", "scipy", "rich", "jinja2", "typer", "numba"]


def test_heavy_modules_load_when_used():
    code = (
        "import sys, odeum; odeum.solve, odeum.NeuralODE, odeum.systems; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_there():
    code = "import odeum; [getattr(odeum, name) for name in odeum.__all__]; odeum.nothing"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'odeum' has no attribute 'nothing'" in found.stderr
