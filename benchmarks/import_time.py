"""What importing odeum and its solver costs beyond torch: medians of fresh processes, in turn.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time

N_REPEATS = 9
BOTH = "import odeum; odeum.solve, odeum.NeuralODE, odeum.systems"


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    for statement in ("import torch", BOTH):
        seconds(statement)  # fills the disk cache
    pairs = [(seconds("import torch"), seconds(BOTH)) for _ in range(N_REPEATS)]
    torch, odeum = (statistics.median(times) for times in zip(*pairs, strict=True))
    extra = statistics.median(b - a for a, b in pairs)
    print(f"import torch {torch:.2f} s, import odeum and solve {odeum:.2f} s: {extra:.2f} s more")


if __name__ == "__main__":
    main()
