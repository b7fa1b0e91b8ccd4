# make up     a control plane on this machine (Ctrl-C stops it; the data stays in .kcp/)
# make test   everything that has to hold: style, types, layers, tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DATA   ?= .kcp
LISTEN ?= 127.0.0.1:6443
NODES  ?= 3
WORKERS ?= 2

.PHONY: up test lint types layers tests bootstrap update lock simulate torture clean

up: $(STAMP)
	@exec $(BIN)/kcp up --data $(DATA) --listen $(LISTEN) --nodes $(NODES)

test: lint types layers tests

bootstrap: $(STAMP)

$(STAMP): requirements.lock pyproject.toml tools/build_schemas.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kcp needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

tests: $(STAMP)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile

simulate: $(STAMP)
	$(BIN)/kcp simulate --seeds $(or $(SEEDS),20) --save tests/simulation/regressions.txt

torture: $(STAMP)
	$(BIN)/python -m tests.store.torture --sqlite $(or $(SQLITE),500) --postgresql $(or $(POSTGRESQL),100) \
	  --histories $(or $(HISTORIES),50) --cuts $(or $(CUTS),5) --pause $(or $(PAUSE),60)

update: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .

lock:
	rm -rf /tmp/kcp-lock && $(PYTHON) -m venv /tmp/kcp-lock
	/tmp/kcp-lock/bin/pip install -q --disable-pip-version-check -e '.[dev]'
	( echo "# Every package that kcp runs and is tested with, pinned. Made by: make lock"; \
	  /tmp/kcp-lock/bin/pip freeze --exclude kcp-controlplane --exclude-editable ) > requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
