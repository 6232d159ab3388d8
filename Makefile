# Everything runs from this folder. PYTHON is any Python from 3.11 on.
PYTHON ?= python3
VENV ?= .venv
SERVERS := .venv-servers
AUDIT := .venv-audit
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install pins schemathesis browser promtool generators proxies image demo serve test real-servers torture hosts torture-beside torture-checked mutants bench fuzz properties pythons check audit screenshots docs clean

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything in it, and the command extract-image

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing to $(VENV) (the first time this fetches about 300 MB) ..."
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip $(VENV)
	@if [ -x $(BIN)/pip ]; then pip="$(BIN)/python -m pip"; else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
		$$pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
		$$pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

browser: ## install Debian's Chromium, which the tests in tests/browser need; they are skipped without it
	@test -x /usr/bin/chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; }

promtool: ## install Debian's Prometheus, whose promtool tests the alert rules; those tests are skipped without it
	@command -v promtool > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus > /dev/null; }

generators: ## install Java and TypeScript, which tests of generated clients need; they are skipped without them
	@command -v java > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends default-jre-headless > /dev/null; }
	@command -v npm > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends npm > /dev/null; }
	@npm ci --prefix tests/e2e/clients --silent --no-audit --no-fund

proxies: ## install Debian's PgBouncer and Caddy, which the tests of these ways to run need; they are skipped without them
	@command -v pgbouncer > /dev/null || test -x /usr/sbin/pgbouncer || { apt-get update -qq && apt-get install -y -qq --no-install-recommends pgbouncer > /dev/null; }
	@command -v caddy > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends caddy > /dev/null; }
	@command -v nginx > /dev/null || test -x /usr/sbin/nginx || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light > /dev/null; }

# The image's labels say what it was built from.
image: ## build the container image extract-image:VERSION with Docker
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) && \
		docker build --build-arg VERSION="$$version" --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
			--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" --tag "extract-image:$$version" .

demo: install ## send the pictures in examples/ through the real queue and show what they say
	@$(BIN)/extract-image demo

serve: install ## run the service here, with a link to the console, a ready key and a curl line to paste
	@$(BIN)/extract-image serve --ready-key

# One process more than cores: on two cores, two processes used 68% of them, because tests wait for servers.
test: install ## run the whole suite
	@$(BIN)/python -m pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --dist loadgroup -m "not alone and not real"
	@$(BIN)/python -m pytest -m alone

real-servers: install $(SERVERS)/.installed ## ask llama-server and LiteLLM, real model servers, what the engine openai promises
	@$(BIN)/python -m pytest -m real tests/contract

# `make test` does the same on SQLite with fewer random requests. This takes minutes, so it is run by hand.
schemathesis: install ## try the service on Postgres with schemathesis, all checks and two accounts
	@$(BIN)/python -m pytest -m real tests/e2e/test_openapi_clients.py

$(SERVERS)/.installed: testbed/install_model_servers.sh
	@testbed/install_model_servers.sh $(PYTHON) $(SERVERS)
	@touch $@

torture: install ## run the service under a hundred faults, and check what it promises: SEED=1
	@$(BIN)/python -m tests.torture --seed $(or $(SEED),1)

hosts: install ## run the service over twelve hosts that are cut off, lost and replaced, and check what it promises: SEED=1 (needs root)
	@$(BIN)/python -m tests.hosts --seed $(or $(SEED),1)

torture-checked: install ## see that the torture fails with a safeguard taken out: the fence, the ledger's key, the second ring
	@for safeguard in fence ledger ring; do \
		broken=$$($(BIN)/python -m tests.torture --short --seed $(or $(SEED),1) --without $$safeguard 2> /dev/null | grep '^FAIL'); \
		if test -z "$$broken"; then echo "without $$safeguard: no promise was seen to break"; exit 1; fi; \
		echo "without $$safeguard these promises broke, as they must:"; echo "$$broken"; done

torture-beside: install ## run the code of an earlier revision and this one side by side on one database: REVISION=HEAD~20 SEED=1
	@$(BIN)/python -m tests.torture --short --seed $(or $(SEED),1) --beside $(or $(REVISION),HEAD~20)

mutants: install ## take about a hundred safeguards out, one at a time, and say which tests notice: docs/reference/mutants.md
	@nice -n 10 $(BIN)/python -m tools.mutants

bench: install ## measure in about 15 minutes, and print one table with the goals: docs/reference/measured.json and .svg
	@$(BIN)/python -m bench --json docs/reference/measured.json --svg docs/reference/measured.svg

fuzz: install ## damage pictures at random for ten minutes and see that only decoders suffer
	@FUZZ_SECONDS=600 $(BIN)/python -m pytest tests/component/pipeline/decode/test_fuzz.py -s -q --timeout=1200

properties: install ## look for examples that break a property and that `make test` does not try
	@$(BIN)/python -m pytest -n $$(getconf _NPROCESSORS_ONLN) --dist loadgroup -m hypothesis --hypothesis-profile=search

pythons: ## run the suite on each Python from 3.11 to 3.13 that is found
	@for version in 3.11 3.12 3.13; do \
		if python$$version --version >/dev/null 2>&1; then $(MAKE) test PYTHON=python$$version VENV=.venv-$$version || exit 1; \
		else echo "python$$version is not here: left out"; fi; done

check: install ## lint, types, import rules, licences
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.licences

pins: ## write the digests that the images' tags have now into the Compose files and the Dockerfiles
	@$(PYTHON) -m tools.pins

# The code 3 means that packages could not be looked up. The output says so, and it is no fault of the packages.
audit: install ## say which locked packages have known faults, or that it could not be looked up
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv --without-pip $(AUDIT) && \
		$(PYTHON) -m pip --python $(AUDIT)/bin/python install --quiet --disable-pip-version-check pip-audit==2.10.1; } || rm -rf $(AUDIT)
	@$(BIN)/python -m tools.audit $(AUDIT)/bin/pip-audit || test $$? -eq 3

screenshots: install browser ## write pictures of the console's screens into docs/images/console
	@$(BIN)/python -m tests.browser.screenshots

docs: install ## build the documents as a site with a search, into the folder site, and check all links
	@$(BIN)/python -m tools.site

clean: ## remove what was made here
	rm -rf .venv .venv-* var site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
