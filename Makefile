# Everything runs inside .venv, which `make venv` builds from the pinned constraints; no other set-up is needed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
MINUTES ?= 60

.PHONY: run test test-all lint bench docs venv fuzz faults soak proto clean

run: venv
	$(BIN)/gridpool day --out out/day --overwrite

test: venv
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

test-all: venv
	$(BIN)/pytest -n 2 --dist loadfile

lint: venv
	$(BIN)/ruff check setup.py src tests bench scripts
	$(BIN)/ruff format --check setup.py src tests bench scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/python -m bench

docs: venv
	$(BIN)/mkdocs build --strict

venv: .venv/ready

.venv/ready: pyproject.toml setup.py constraints.txt $(wildcard src/gridpool/ledger/native*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,postgres,scheduler]'
	touch $@

proto:
	cd src && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. gridpool/engines/abci/abci.proto

FUZZ_SECONDS ?= 60

fuzz: venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	for target in decoder proof archive parquet snapshot keys store http; do \
		$(BIN)/python tests/fuzz/fuzz_ledger.py $$target -max_total_time=$(FUZZ_SECONDS) -max_len=20000 || exit 1; \
	done

# Real processes are killed, cut off and starved here; the engines come from scripts/install-engines.
faults: venv
	$(BIN)/pytest tests/faults tests/engines --durations 10

soak: venv
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES) --out docs/reference/soak.md

clean:
	rm -rf .venv build dist site out
