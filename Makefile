# `make demo` and `make test` are all a newcomer needs: each sets up what is missing, in .venv beside this file.
# They need Python 3.11 or newer (its venv module included) and make; nothing else is installed outside .venv.
#
#   PYTHON=python3.12 make test    uses that interpreter, and makes .venv anew if it was made with another
#   VENV=.venv312 make test        keeps the environment elsewhere

PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
MCP := $(VENV)/mcp-servers
CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3 python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
unexport PYTHONPATH PYTHONHOME

.PHONY: help demo test bench lint faults soak format lock clean remake check-ruff check-format check-types check-layers check-tests

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r target text; do printf '  make %-8s %s\n' "$$target" "$$text"; done

demo: $(VENV)/.run  ## show what plait can do, without a key or a network
	@$(BIN)/plait demo

test: $(VENV)/.dev $(VENV)/.mcp $(VENV)/.tables  ## run every check: style, types, layers, tests with coverage
	@$(MAKE) --no-print-directory --keep-going check-ruff check-format check-types check-layers check-tests \
		|| { echo "plait: some checks failed; the steps above say which"; exit 1; }
	@echo "plait: all checks passed"

bench: $(VENV)/.dev  ## measure what plait costs beside a hand-written loop (five minutes, on a quiet machine)
	@$(BIN)/python -m benchmarks --markdown benchmarks/results.md

lint: check-ruff check-format check-types check-layers  ## run the checks that need no test run

faults: $(VENV)/.dev $(VENV)/.mcp $(VENV)/.tables  ## run the tests of the fault matrix and show it row by row (ROWS="L T04": those only)
	@$(BIN)/python tests/faults/report.py $(ROWS)

soak: $(VENV)/.dev  ## prove at length what the tests prove in short (ARGS=--help tells how)
	@$(BIN)/python tests/soak $(ARGS)

format: $(VENV)/.dev  ## format the code and mend what ruff can mend
	@$(BIN)/python -m ruff format
	@$(BIN)/python -m ruff check --fix

check-ruff: $(VENV)/.dev
	@echo "plait: ruff check"
	@$(BIN)/python -m ruff check --quiet

check-format: $(VENV)/.dev
	@echo "plait: ruff format --check"
	@$(BIN)/python -m ruff format --check --output-format concise || { echo "plait: not formatted; 'make format' does it"; exit 1; }

check-types: $(VENV)/.dev
	@echo "plait: mypy"
	@$(BIN)/python -m mypy --no-error-summary

check-layers: $(VENV)/.dev
	@echo "plait: lint-imports"
	@$(BIN)/python -c 'import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())' \
		> $(VENV)/layers.log 2>&1 || { cat $(VENV)/layers.log; exit 1; }

check-tests: $(VENV)/.dev $(VENV)/.mcp $(VENV)/.tables
	@echo "plait: pytest"
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

# --- set-up: each stamp file stands for what is installed ------------------------------------------------------------

# An environment belongs to one folder and one interpreter; .made names both.
MADE := $(shell cat $(VENV)/.made 2>/dev/null)
ifneq ($(MADE),$(CURDIR) $(or $(PYTHON),$(lastword $(MADE))))
$(VENV)/.made: remake
endif

$(VENV)/.made:
	@for python in $(or $(PYTHON),$(CANDIDATES)) ""; do \
		test -n "$$python" || { \
			echo "plait: needs Python 3.11 or newer, and found none (tried: $(or $(PYTHON),$(CANDIDATES)));" \
				"install one, or name it with PYTHON=/path/to/python make ..." >&2; exit 1; }; \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
		package="python$$version-venv"; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "plait: this Python $$version cannot make environments; installing $$package with apt-get"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$$package" >/dev/null || exit 1; \
		else \
			echo "plait: this Python $$version cannot make environments, for it lacks venv or ensurepip." \
				"On Debian or Ubuntu: sudo apt-get install $$package; then run make again." >&2; exit 1; \
		fi; \
	fi; \
	echo "plait: making $(VENV) with Python $$version"; \
	"$$python" -m venv --clear "$(VENV)" && echo "$(CURDIR) $$python" > $@

PIP := -m pip install --disable-pip-version-check --no-input --progress-bar off
INSTALL_PLAIT := && $(BIN)/python $(PIP) --no-index --no-build-isolation --no-deps --editable .

# $(1): the environment, $(2): what is pinned for it, $(3): what else to run.
# Progress: pip names each package it collects; every tenth is told, and each new try when the network fails.
define install
@total=$$(grep -c '^[^ #].*==' $(2)); log=$(1)/install.log; \
echo "plait: installing $$total pinned packages into $(1)"; \
{ export PYTHONUNBUFFERED=1; $(1)/bin/python $(PIP) --require-hashes -r $(2) $(3) && echo INSTALLED; } 2>&1 | tee $$log | awk -v total=$$total \
	'/^(Collecting|Requirement already)/ && !/^Requirement.*(from .*->)/ && ++n % 10 == 0 { print "         " n " of " total; fflush() } /^WARNING: Retrying/ { print; fflush() }'; \
tail -n 1 $$log | grep -q INSTALLED || { cat $$log; echo "plait: the installation failed; the lines above say why" >&2; exit 1; }
endef

$(VENV)/.run: $(VENV)/.made requirements/run.txt pyproject.toml
	$(call install,$(VENV),requirements/run.txt,$(INSTALL_PLAIT))
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt pyproject.toml
	$(call install,$(VENV),requirements/dev.txt,$(INSTALL_PLAIT))
	@touch $(VENV)/.run $@

# MCP servers and checks written by others. Where they cannot be had, CI fails; elsewhere the tests that need them are skipped.
$(VENV)/.mcp: $(VENV)/.made requirements/mcp-servers.txt requirements/node/package-lock.json
	@if $(MAKE) --no-print-directory $(MCP)/.node; then touch $@; \
	elif [ "$$CI" = true ]; then exit 1; \
	else echo "plait: without MCP servers written by others; the tests that need them are skipped" >&2; fi

$(MCP)/.python: $(VENV)/.made requirements/mcp-servers.txt
	@$(BIN)/python -m venv --clear $(MCP)
	$(call install,$(MCP),requirements/mcp-servers.txt)
	@touch $@

# The pinned npm, with the certificates that the machine trusts; else the machine's own, which may know of a mirror.
$(MCP)/.node: $(MCP)/.python requirements/node/package.json requirements/node/package-lock.json requirements/node/.npmrc
	@echo "plait: installing $$(grep -c '"integrity"' requirements/node/package-lock.json) pinned npm packages into $(MCP)"
	@rm -rf $(MCP)/node && cp -r requirements/node $(MCP)/node
	@export NODE_USE_SYSTEM_CA=1; for npm in $(MCP)/bin/npm npm; do \
		command -v $$npm >/dev/null && $$npm --prefix $(MCP)/node ci >>$(MCP)/install.log 2>&1 && exit; \
	done; cat $(MCP)/install.log; echo "plait: the installation failed; the lines above say why" >&2; exit 1
	@touch $@

# The tables that tiktoken would download, out of a package that carries them; the rest of it is thrown away.
$(VENV)/.tables: $(VENV)/.made requirements/tables.txt
	@rm -rf $(VENV)/tables $(VENV)/tables.whole
	@if $(MAKE) --no-print-directory $(VENV)/tables; then touch $@; \
	elif [ "$$CI" = true ]; then exit 1; \
	else echo "plait: without tiktoken's tables; the tests that need them are skipped" >&2; fi

$(VENV)/tables:
	$(call install,$(VENV),requirements/tables.txt,--no-deps --target $(VENV)/tables.whole)
	@mv $(VENV)/tables.whole/llama_index/core/_static/tiktoken_cache $@ && rm -rf $(VENV)/tables.whole

# --- pinned requirements --------------------------------------------------------------------------------------------

# Compiled with the oldest Python, which needs the most packages. Local package folders are set aside, so that the hashes
# are those of every file of a release (UPGRADE=--upgrade takes the newest releases; otherwise pins stay while they fit).
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" PIP_CONFIG_FILE=/dev/null env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL \
	$(VENV)-lock/bin/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options $(UPGRADE)

lock:  ## pin the requirements anew (UPGRADE=--upgrade: the newest releases); needs python3.11
	@echo "plait: preparing $(VENV)-lock"
	@python3.11 -m venv --clear $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/lock.txt
	@echo "plait: requirements/dev.txt (a minute)"
	@$(COMPILE) -o requirements/dev.txt pyproject.toml requirements/run.in requirements/dev.in
	@echo "plait: requirements/run.txt"
	@$(COMPILE) -c requirements/dev.txt -o requirements/run.txt pyproject.toml requirements/run.in
	@echo "plait: requirements/mcp-servers.txt"
	@$(COMPILE) --no-strip-extras -o requirements/mcp-servers.txt requirements/mcp-servers.in
	@echo "plait: requirements/tables.txt (a minute)"
	@$(COMPILE) -o $(VENV)-lock/tables.txt requirements/tables.in
	@{ echo "#"; echo "# The pin of requirements/tables.in alone, without what it needs; made by 'make lock'."; echo "#"; \
		awk '/^[^ #]/ { keep = /^llama-index-core==/ } keep && !/^#/' $(VENV)-lock/tables.txt; } > requirements/tables.txt
	@echo "plait: requirements/lock.txt"
	@$(COMPILE) -o requirements/lock.txt requirements/lock.in
	@echo "plait: requirements/node/package-lock.json"
	@cd requirements/node && NODE_USE_SYSTEM_CA=1 PATH="$(abspath $(VENV)-lock/bin):$$PATH" npm $(if $(UPGRADE),update,install) --package-lock-only --silent

clean:  ## remove the environments and everything the checks left behind
	@rm -rf $(VENV) $(VENV)-lock build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
