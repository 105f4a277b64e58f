# `make video` and `make test` need Python 3.11+, make and git, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
PROMPT ?= a red ball bounces on the grass, then rolls to the left
# Where there is no NVIDIA GPU the CPU build is enough; set TORCH to choose another build of torch.
TORCH  ?= torch==2.13.0

.PHONY: video test lint install dev clean

video: install
	mkdir -p out
	$(BIN)/kinema generate "$(PROMPT)" --seed 7 --out out/video.mp4

test: dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: dev
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy

install: $(VENV)/.installed
dev: $(VENV)/.dev

# torch goes first and alone, so that nothing else pulls in another build of it.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit("kinema needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
