# Two commands do it all on a machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test browser soak fuzz lint docs clean

# Installed once, and again only when what is asked for changes.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m restore.cli demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto

# The page of examples/browser, which the tests then open: needs npm, and gets one package by it.
browser: $(VENV)/installed
	$(BIN)/python examples/browser/build.py

# Some ten minutes: a hundred kills at random moments, and a folder of 5,000 pictures with 50 broken ones.
soak: $(VENV)/installed
	$(BIN)/python -m tests.soak

# Some minutes: 20,000 mutated files of all formats through `restore fix`. FILES=FOLDER mutates the files of a folder, too.
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz_decoders --count 20000 $(FILES)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/vocabulary.py

# The site opens from the disk: build/docs/index.html
docs: $(VENV)/installed
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf $(VENV) data/samples build dist .pytest_cache .ruff_cache .mypy_cache
