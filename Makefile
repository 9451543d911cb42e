# Two commands do everything, from nothing but a python3 with venv:
#   make demo    a base alone and guided, on pictures that it was never trained on; keeps score, then of two experts at once
#   make test    style, types and tests (make test-all: the rare ones too); installs chromium with apt-get if there is none
# And while you work on it: make laws, the tests that need neither a server nor SGLang, in less than a minute.
PYTHON ?= python3
JOBS ?= 1
VENV := .venv
BIN := $(VENV)/bin
# Byte code is written once here: SGLang imports about 10,000 modules in each of a server's processes.
# (So is that of tests, also where the environment says otherwise: each worker and server would compile them again.)
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --constraints constraints.txt --compile-bytecode

SPECULATING := $(addprefix tests/test_, $(addsuffix .py, oracle families laws trace sampling memory_pressure tiny_served served_laws served_experts programs \
	http grammars image_cache placements))
# What a start may do to a server, and what any server must do, of those that are no forks.
COLD := $(addprefix tests/test_, $(addsuffix .py, oracle http engine failing_closed server_flags start_log drafts_by_default rank_death))

.PHONY: demo test test-all laws lint gpu-tests bench-cpu clean

demo: $(VENV)/installed
	$(BIN)/python -m programs.demo

test: lint
	.ci/install_browser
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations 15
	@$(BIN)/python -m benchmarks.gpu_tests --tell-if-stale

# Beside them what others cover in parts (all placements, long runs of an evaluation), servers that speculate, and all
# families on one rank and on two: before an issue about one of these is called done. Last come servers that start as a
# user's do (--cold): tests start them as forks of one that has imported SGLang (tests/warm_start.py). Not in all tests, and
# in one at a time: two workers with three such servers each need more than 24 GB.
test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadgroup --rare -m rare
	$(BIN)/python -m pytest -n 2 --dist loadgroup --speculate 3 $(SPECULATING)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --family-ranks 1 tests/test_families.py
	$(BIN)/python -m pytest -n 2 --dist loadgroup --family-ranks 2 tests/test_families.py
	$(BIN)/python -m pytest --cold $(COLD)

laws: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m laws

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a GPU host, from a bare checkout: PYTHON is one that has SGLang and pytest.
# JOBS at once, each with servers of its own.
gpu-tests:
	$(PYTHON) -m benchmarks.gpu_tests --jobs $(JOBS)

bench-cpu: $(VENV)/installed
	$(BIN)/python -m benchmarks.cpu_cost

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "Python 3.11 or 3.12 with venv is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@echo "Installing SGLang and its dependencies: about 9 GB, a few minutes"
	UV_CONCURRENT_INSTALLS=4 $(INSTALL) --group dev --editable .
	@touch $@

clean:
	rm -rf $(VENV) .venv-eval
