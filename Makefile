# On a fresh machine, `make run` and `make test` do all the set-up that they need.
# The files .venv/installed-* record what is installed, so that a second run starts at once.

ARGS ?=
# The test files are spread over this many processes, each with servers of its own. TEST_PROCESSES=0 runs them in one process.
TEST_PROCESSES ?= 4
PYTHONS = python3.13 python3.12 python3.11 python3

# make puts a variable of its command line (PORT=8081) into the environment, where the server reads its settings.
.PHONY: help run test lint lock bench-ingest bench-realtime clean
.DELETE_ON_ERROR:

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

run: .venv/installed-run  ## start on http://127.0.0.1:8080, with files in ./var
	FLASK_APP=wsgi.py .venv/bin/flask run

test: .venv/installed-test  ## run all tests; ARGS="-k spool" passes arguments to pytest
	.venv/bin/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed-test  ## check code and types (ruff, mypy)
	.venv/bin/ruff check .
	.venv/bin/mypy

# bench/ingest.py describes the other arguments.
bench-ingest: .venv/installed-test  ## measure the cost of ingest, beside Node; ARGS=--quick is shorter
	.venv/bin/python -m bench.ingest $(ARGS)

bench-realtime: .venv/installed-test  ## measure live topics, beside Node; ARGS=--quick is shorter
	.venv/bin/python -m bench.realtime $(ARGS)

clean:  ## remove .venv and the caches of the tools
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in two seconds, pip in twenty. uv comes from the PATH, else from the package index into .venv. Where it cannot be
# installed, or fails, pip installs. Both check every file against the hashes in the requirements.
UV_VERSION = 0.13.9
PIP = .venv/bin/pip --quiet --disable-pip-version-check

# Each candidate is run, not only looked up: version managers leave names on the PATH that run nothing, and Debian's Python
# lacks ensurepip until python3-venv is installed.
.venv/bin/python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Making .venv with $$($$python --version)"; \
	    $$python -m venv --clear .venv && exit 0; \
	  fi; \
	done; \
	echo "Switchyard needs Python 3.11 or newer with its venv module, and none of these is one: $(PYTHONS)" >&2; exit 1

.venv/installed-run: requirements.txt | .venv/bin/python
	$(call install,requirements.txt)
	@touch $@

.venv/installed-test: requirements-dev.txt | .venv/bin/python
	$(call install,requirements-dev.txt)
	@touch .venv/installed-run $@

# uv gets the package index of pip's configuration and the machine's certificate authorities, because pip uses both.
define install
	@echo "Installing $(1)"
	@export PATH="$(CURDIR)/.venv/bin:$$PATH" UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1; \
	index="$${PIP_INDEX_URL:-$$($(PIP) config get global.index-url 2>/dev/null)}"; \
	[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; \
	command -v uv >/dev/null || $(PIP) install uv==$(UV_VERSION) 2>/dev/null || true; \
	uv pip install --quiet --python .venv/bin/python -r $(1) 2>/dev/null || $(PIP) install -r $(1)
endef

# The requirements files have the pins of pyproject.toml, their dependencies, and the hashes of all files.
lock: .venv/installed-test  ## write both requirements files from the pins of pyproject.toml
	$(call resolve,--group run,requirements.txt)
	$(call resolve,--group run --group test,requirements-dev.txt)

resolve = PATH="$(CURDIR)/.venv/bin:$$PATH" UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 uv pip compile --quiet $(1) --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command "make lock" --output-file $(2)
