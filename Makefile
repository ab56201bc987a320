# Thin targets; CI runs the same ones. A machine needs Python 3.11 or newer, and nothing else.
#   make run      try it: works without a network or a key (ARGS="--gateway 127.0.0.1:4100" for options of `faregate serve`)
#   make test     everything that proves it (ARGS="tests/core" for a part)

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
COMPILED := .venv-compiled/bin
ARGS ?=
# More than cores: processes that are started and stopped are waited for.
WORKERS ?= 5

# Where this is set, as in many containers, every start of a process compiles its thousand modules anew: it takes most of
# the time of a suite that starts hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run install install-dev wheel lint format check test test-compiled bench bench-limits bench-cache soak docs lock clean

help:
	@sed -n 's/^#   //p' Makefile; echo 'also: install wheel lint format check test-compiled bench bench-limits bench-cache soak docs lock clean'

run: install
	@exec $(BIN)/faregate serve --first-run $(ARGS)

install: $(BIN)/.run

install-dev: $(BIN)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer was not found; set PYTHON=/path/to/python3' >&2; exit 2; }
	@echo 'installing into .venv; this first time takes about half a minute …' >&2
	@$(PYTHON) -m venv .venv || { echo 'venv is missing: install python3-venv, or set PYTHON to another one' >&2; exit 2; }

$(BIN)/uv: $(BIN)/python requirements/build.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@touch $@

$(BIN)/.run: $(BIN)/uv requirements/run.txt pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/run.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/.dev: $(BIN)/.run requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

# The wheel for production, its request path compiled (docs/decisions/010), and an environment that it is installed in.
# It is built from the source distribution: the compiler leaves its modules beside the sources that it was given.
wheel: $(COMPILED)/.installed

$(COMPILED)/.installed: $(BIN)/.dev requirements/compile.txt README.md $(shell find src \( -type f -o -type d \) ! -path '*__pycache__*')
	@command -v $${CC:-cc} >/dev/null && test -e "$$($(BIN)/python -c 'import sysconfig as s; print(s.get_path("include"))')/Python.h" || \
		{ echo 'a C compiler or Python.h is missing: apt-get install gcc libc6-dev python3-dev' >&2; exit 2; }
	@test -x $(COMPILED)/python || $(PYTHON) -m venv .venv-compiled
	@for group in run dev compile; do \
		$(BIN)/uv pip install --quiet --compile-bytecode --python $(COMPILED)/python --require-hashes -r requirements/$$group.txt || exit 1; done
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=true $(BIN)/uv build --quiet --clear --no-build-isolation --python $(COMPILED)/python --out-dir dist
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(COMPILED)/python --no-deps --reinstall dist/*.whl
	@touch $@

lint: install-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: install-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: install-dev
	$(BIN)/mypy src tests

# Each worker keeps to one stretch of the suite, so that an installation is started by one of them and not by all.
test: install-dev
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

# The same tests against the compiled wheel.
test-compiled: wheel
	$(COMPILED)/pytest -n $(WORKERS) --dist worksteal -o pythonpath=tests $(ARGS)

bench: wheel
	$(BIN)/python bench/run.py $(ARGS)

bench-limits: wheel
	$(BIN)/python bench/limits.py $(ARGS)

bench-cache: wheel
	$(BIN)/python bench/cached.py $(ARGS)

# Long forms of the rig, then whatever says how long it looks where there is time.
soak: install-dev
	$(BIN)/python tests/chaos/soak.py $(ARGS)
	$(BIN)/python tests/chaos/soak_canaries.py
	$(BIN)/python tests/chaos/soak_revocations.py
	$(BIN)/python tests/chaos/soak_timing.py
	$(BIN)/python tests/core/soak_pricing.py 1000000
	FAREGATE_SOAK=1 $(BIN)/pytest -n $(WORKERS) --timeout 0 $$(grep -rlE 'import examples|FAREGATE_SOAK' tests --include='test_*.py')

docs: install-dev
	$(BIN)/python docs/reference/write.py

# Without index lines or file URLs, so that any registry with the same files serves it.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header
lock: $(BIN)/uv
	$(BIN)/$(COMPILE) pyproject.toml -o requirements/run.txt
	$(BIN)/$(COMPILE) pyproject.toml --group dev -c requirements/run.txt -o requirements/dev.txt
	$(BIN)/$(COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(BIN)/$(COMPILE) requirements/compile.in -c requirements/dev.txt -o requirements/compile.txt

clean:
	rm -rf .venv .venv-compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
