.PHONY: setup demo test lint cluster bench clean

setup: .venv/.ready  ## create .venv from the lock and install the package

.venv/.ready: requirements.lock pyproject.toml
	python3.11 -m venv .venv || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup  ## the scripted life of a model
	.venv/bin/homeostat demo

lint: setup  ## style, types, layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: lint  ## everything
	.venv/bin/pytest

cluster: setup  ## Ray and Spark for tests/test_batch_clusters.py, in the user's cache (0.8 GB)
	.venv/bin/python tests/needs.py tests/pins/cluster.txt

bench: setup  ## ours beside peers and the limit, in one run (needs wrk)
	.venv/bin/python -m bench.serve

clean:  ## forget the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
