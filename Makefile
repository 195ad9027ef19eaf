# What a person types. CI calls the same targets.
PYTHON ?= python3.11
BIN := .venv/bin
PLAIN := .venv-plain
PIP := -m pip install -q --disable-pip-version-check
DEMO_MODELS ?= build/demo-models
TORCH ?= torch==2.13.0
# Tests and tools start hundreds of processes: each shall find our modules compiled, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-plain conformance-tools lint fix protos sync-client flags bench fuzz attack soak reload-soak compare forge-matrix clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: .venv/.core ## set up, build the small examples, serve them, call them (DEMO_ONCE=1 ends by itself)
	$(BIN)/python examples/quickstart/demo.py $(DEMO_MODELS)

# Two processes, for two cores: most tests wait for processes of their own. With PYTEST there is one. What runs apart
# is shown after the others, then what failed anywhere.
APART := tests/forge tests/conformance tests/contract

define run-tests
	@mkdir -p build
	@$(1) $(APART) > build/tests-apart.log 2>&1 & apart=$$!; \
	{ $(1) $(APART:%=--ignore=%); echo $$? > build/tests-others.exit; } 2>&1 | tee build/tests-others.log; \
	wait $$apart; apart=$$?; read others < build/tests-others.exit; \
	cat build/tests-apart.log; grep -hE '^(FAILED|ERROR) ' build/tests-others.log build/tests-apart.log; \
	echo "exit code $$apart: $(APART); exit code $$others: all other tests"; \
	test $$apart -eq 0 && test $$others -eq 0
endef

test: .venv/.complete ## set up, then run every test
ifdef PYTEST
	$(BIN)/python -m pytest $(PYTEST)
else
	$(call run-tests,$(BIN)/python -m pytest)
endif

test-plain: $(PLAIN)/.complete ## the same in an environment without TensorFlow, where the plain install must do
ifdef PYTEST
	$(PLAIN)/bin/python -m pytest --plain $(PYTEST)
else
	$(call run-tests,$(PLAIN)/bin/python -m pytest --plain)
endif

lint: .venv/.complete ## formatting, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: .venv/.complete ## mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: .venv/.complete ## compile the message definitions
	$(BIN)/python -m servable.protos.compile

sync-client: .venv/.complete ## generate the synchronous client from the asynchronous one
	$(BIN)/python -m servable.client.generate

flags: .venv/.complete ## write the page of flags
	$(BIN)/python -m servable.cli.flags_page

bench: .venv/.complete ## measure this machine and write docs/benchmarks
	$(BIN)/python -m bench.run $(BENCH)

fuzz: .venv/.complete ## a million fuzzed frames, a hundred thousand mutated requests; writes docs/benchmarks/fuzz.md
	$(BIN)/python -m bench.fuzz

attack: .venv/.complete ## what each flood and stall costs another client; writes docs/benchmarks/attack.md
	$(BIN)/python -m bench.attack

soak: .venv/.complete ## 10 000 requests must leave memory as it was
	$(BIN)/python -m bench.soak

reload-soak: .venv/.complete ## changes under load must fail nothing; writes docs/benchmarks/reload_soak.md
	$(BIN)/python -m bench.reload_soak

compare: .venv/.complete ## ours beside every peer that runs here; writes docs/benchmarks/comparison.md (half an hour)
	$(BIN)/servable bench peers install
	$(BIN)/python -m bench.comparison

forge-matrix: .venv/.complete ## every model through every step in every engine; writes docs/benchmarks/forge_matrix.md
	$(BIN)/python -m bench.forge_matrix

conformance-tools: ## install the foreign clients that tests/conformance drives (needs root for the first line)
	command -v h2load wrk nghttp curl >/dev/null || { apt-get update -qq && apt-get install -y -qq nghttp2-client wrk curl; }
	cd tests/conformance/node && npm install --silent --no-audit --no-fund

.venv/.core: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) -e '.[zoo]'
	touch $@

# torch first, and pinned: what asks for it later would take the newest one with all that a GPU needs. Where wheels for
# CPUs have an index of their own: make test TORCH='torch --index-url https://download.pytorch.org/whl/cpu'.
# tensorflow-serving-api asks for the large TensorFlow package by name: take it without its dependencies.
.venv/.complete: .venv/.core
	$(BIN)/python $(PIP) $(TORCH)
	$(BIN)/python $(PIP) -e '.[tensorflow,litert,torch,forge,zoo,preprocess,lab,test]'
	$(BIN)/python $(PIP) --no-deps tensorflow-serving-api
	touch $@

$(PLAIN)/.complete: pyproject.toml
	test -x $(PLAIN)/bin/python || $(PYTHON) -m venv $(PLAIN)
	$(PLAIN)/bin/python $(PIP) -e '.[zoo,lab,test]'
	touch $@

clean: ## remove what the other targets made
	rm -rf .venv $(PLAIN) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
