# Everything a newcomer or CI needs: `make demo` shows odeum at work, `make test` checks it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint types unit bench format clean

demo: $(VENV)/.installed
	$(BIN)/odeum fit examples/data/lynx_hare.csv --time year

# Side by side: the types are checked by one process, the tests run in two.
test: $(VENV)/.installed-dev
	$(MAKE) --no-print-directory --jobs 3 --output-sync=target lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -q -m slow

bench: $(VENV)/.installed-dev
	$(PIP) -e '.[bench]'
	$(BIN)/python benchmarks/against_torchdiffeq.py
	$(BIN)/python benchmarks/fused.py
	$(BIN)/python benchmarks/cold.py
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/stiff_batch.py --repeats 1
	$(BIN)/python benchmarks/work_precision.py --problems lorenz hires --rtols 1e-4 1e-7

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The stamps make a second `make` start at once; editing the dependencies installs again.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
