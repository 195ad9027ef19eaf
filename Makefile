# What a person types. CI calls the same targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLAIN := .venv-plain

.PHONY: demo test test-plain lint fix protos bench soak clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e '.[zoo]'
	touch $@

# tensorflow-serving-api asks for the large TensorFlow package: take it alone.
$(STAMP): $(VENV)/.core
	$(BIN)/pip install -q -e '.[tensorflow,zoo,test]'
	$(BIN)/pip install -q --no-deps tensorflow-serving-api
	touch $@
