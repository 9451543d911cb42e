# Two commands do everything, from nothing but a python3 with venv:
#   make demo    a base alone and guided, on pictures that it was never trained on; keeps score for a minute
#   make test    all tests; installs chromium with apt-get if there is none
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written once here: SGLang imports about 10,000 modules in each of a server's processes.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --compile-bytecode

.PHONY: demo test lint bench-cpu clean

demo: $(VENV)/installed
	$(BIN)/python -m programs.demo

test: $(VENV)/installed
	.ci/install_browser
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench-cpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.cpu_cost

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "Python 3.11 or 3.12 with venv is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@echo "Installing SGLang and its dependencies: about 9 GB, a few minutes"
	UV_CONCURRENT_INSTALLS=4 $(INSTALL) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV)
