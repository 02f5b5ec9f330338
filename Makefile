# Thin on purpose: each target is a line or two; the work is in scripts/ and in the package.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo demo-chat test check bench docs clean

setup: .venv/.ready  ## .venv with all that the demo, the tests and the benchmarks need

.venv/.ready: pyproject.toml constraints.txt scripts/setup
	bash scripts/setup $(PYTHON)

demo: setup  ## the main job on the embedded default: movie reviews, MiniLM, a dollar, five minutes
	bash scripts/demo sentiment

demo-chat: setup  ## the same for a chat model
	bash scripts/demo support-bot

check: setup  ## formatting, lint, types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

.venv-sky/.ready: scripts/sky
	bash scripts/sky $(PYTHON)

test: check .venv-sky/.ready  ## check, then every test, by two processes with a core each
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.venv-autogluon/.ready: scripts/autogluon
	bash scripts/autogluon $(PYTHON)

bench: setup .venv-autogluon/.ready  ## every claim, measured; results are kept in bench/results/
	$(BIN)/python bench/run_all.py

docs: setup  ## the generated parts of the documents: commands, project file, measurements
	$(BIN)/python scripts/docs.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
