# The two commands of a fresh machine are `make run` and `make test`: each does all the set-up it needs.
# A stamp file inside .venv remembers what is installed, so that the second run starts at once.

ARGS ?=
# Test files are shared out among so many processes, each with servers of its own. TEST_PROCESSES=0 runs them in one.
TEST_PROCESSES ?= 4
PYTHONS = python3.13 python3.12 python3.11 python3

# PORT=8081 on the command line, like any other setting, reaches the server by its environment.
.PHONY: run test lint bench-ingest clean
.DELETE_ON_ERROR:

run: .venv/installed-run
	FLASK_APP=wsgi.py .venv/bin/flask run

test: .venv/installed-test
	.venv/bin/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(ARGS)

lint: .venv/installed-test
	.venv/bin/ruff check .

# ARGS=--quick takes a minute; bench/ingest.py says what else it takes.
bench-ingest: .venv/installed-test
	.venv/bin/python -m bench.ingest $(ARGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

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
	@echo "Installing requirements.txt"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-test: requirements.txt requirements-dev.txt | .venv/bin/python
	@echo "Installing requirements-dev.txt"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch .venv/installed-run $@
