# The two commands of a fresh machine are `make run` and `make test`: each does all the set-up it needs.
# A stamp file inside .venv remembers what is installed, so that the second run starts at once.

ARGS ?=
# Test files are shared out among so many processes, each with servers of its own. TEST_PROCESSES=0 runs them in one.
TEST_PROCESSES ?= 4
PYTHONS = python3.13 python3.12 python3.11 python3

# PORT=8081 on the command line, like any other setting, reaches the server by its environment.
.PHONY: help run test lint lock bench-ingest clean
.DELETE_ON_ERROR:

help:  ## say what the commands are
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

run: .venv/installed-run  ## start on http://127.0.0.1:8080, with files in ./var
	FLASK_APP=wsgi.py .venv/bin/flask run

test: .venv/installed-test  ## run every test; ARGS="-k spool" passes arguments to pytest
	.venv/bin/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed-test  ## look for mistakes, untidy code and wrong types
	.venv/bin/ruff check .
	.venv/bin/mypy

# ARGS=--quick takes a minute; bench/ingest.py says what else it takes.
bench-ingest: .venv/installed-test  ## measure what ingest costs, beside Node; ARGS=--quick takes a minute
	.venv/bin/python -m bench.ingest $(ARGS)

clean:  ## remove .venv and what the tools left
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in a second or two what pip takes twenty for. It is taken from the PATH, else from the package index into .venv; where
# it cannot be had, or fails, pip does the same. Both check every file against the hashes of the requirements.
UV_VERSION = 0.13.9
PIP = .venv/bin/pip --quiet --disable-pip-version-check

# A candidate is tried and not only looked for: a version manager leaves names on the PATH that run nothing, and Debian's
# Python comes without ensurepip until python3-venv is installed.
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

# uv is given the index of pip's configuration, a mirror perhaps, and the machine's own authorities, as pip has them.
define install
	@echo "Installing $(1)"
	@export PATH="$(CURDIR)/.venv/bin:$$PATH" UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1; \
	index="$${PIP_INDEX_URL:-$$($(PIP) config get global.index-url 2>/dev/null)}"; \
	[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; \
	command -v uv >/dev/null || $(PIP) install uv==$(UV_VERSION) 2>/dev/null || true; \
	uv pip install --quiet --python .venv/bin/python -r $(1) 2>/dev/null || $(PIP) install -r $(1)
endef

# The pins of pyproject.toml, with all that they need and the hashes of every file.
lock: .venv/installed-test  ## resolve the pins of pyproject.toml into the two requirements files
	$(call resolve,--group run,requirements.txt)
	$(call resolve,--group run --group test,requirements-dev.txt)

resolve = PATH="$(CURDIR)/.venv/bin:$$PATH" UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 uv pip compile --quiet $(1) --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command "make lock" --output-file $(2)
