# Two commands do all the set-up on a fresh machine with Python 3.11+ and make: `make demo`, `make test`.
# Nothing here needs root, a system package or a C compiler; what the machine lacks, tests name and leave out.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
TRAFFIC := udp,tcp=0.3,size=64-300,flows=10000,zipf=1.1,dst=192.0.2.1/32,count=1000000
EXAMPLES := src/xdpbatch/examples

.PHONY: demo test lint verifier-tests bench results docs size lock clean

$(BIN)/xdpbatch: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(BIN)/xdpbatch requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

# The main job: a real XDP program over a capture in batches of 64 as native code, and what batching bought.
demo: $(BIN)/xdpbatch
	@mkdir -p build
	$(BIN)/xdpbatch run $(EXAMPLES)/pass.o --synth $(TRAFFIC) -w build/demo.pcapng
	$(BIN)/xdpbatch run $(EXAMPLES)/lb.o --map $(EXAMPLES)/lb.json -r build/demo.pcapng --baseline

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# What docs/verifier.md says of the verifier. XDPBATCH_LINUX_SOURCE: a tree or tarball of linux-source-6.1, without which the
# kernel's own tests are left out by name; FUZZ programs from SEED go to both verifiers (root).
FUZZ ?= 1000
SEED ?= 1
verifier-tests: $(VENV)/.dev
	XDPBATCH_FUZZ=$(FUZZ) XDPBATCH_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -s -rA --no-header \
	    tests/kernel/test_verify_selftests.py tests/kernel/test_verify_fuzz.py tests/kernel/test_global_functions.py \
	    tests/filetests/test_verify_filetests.py tests/unit/test_verdict.py tests/unit/test_guard.py \
	    tests/property/test_soundness.py tests/property/test_guards.py tests/property/test_verify_*.py

# Every measurement: tables on stdout, JSON in build/bench. `make results` also writes them into docs/results.md, with
# pictures. About five minutes; wants a quiet machine; as root also the kernel and AF_XDP, which are left out otherwise.
bench: $(VENV)/.dev
	$(BIN)/python -m xdpbatch.bench

results: $(VENV)/.dev
	$(BIN)/python -m xdpbatch.bench --document docs/results.md

# What programs may use, from the registries; a test says when it is out of date.
docs: $(BIN)/xdpbatch
	$(BIN)/python -m xdpbatch.compatibility > docs/compatibility.md

# The locks name versions and hashes only; uv writes them (make lock, with network).
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-emit-index-url --no-header -o requirements.lock pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-emit-index-url --no-header --extra test --extra dev --extra cc --extra plot \
	    -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
