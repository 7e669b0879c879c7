# One command for everything a developer does; `make` alone prints them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The pins were made with 3.11; any later one is used where it is missing.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PINS   := $(wildcard requirements/*.txt)
CHECKED = $(wildcard schemas broker mac_agent vps_bridge clients/python/omi_diarization_client integrations tests demo benchmarks)

.PHONY: help env models demo screenshots test test-long lint bench bench-engine bench-agents bench-jobs bench-delivery bench-queue bench-labels bench-floods
.PHONY: bench-fleet bench-cluster bench-ledgers bench-bucket bench-pages bench-frames bench-omi bench-omi-placement bench-year bench-people bench-linking
.PHONY: bench-words test-postgres acceptance chaos pins clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP) ## make .venv from the pins in requirements/

# uv, itself a pin, takes a tenth of the time. It reads no settings of pip's, so where only those lead to an index, pip does it.
# Neither compiles: most files are never imported; what is imported is compiled then, and kept.
unexport PYTHONDONTWRITEBYTECODE
$(STAMP): $(PINS) pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt > $(VENV)/uv.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes $(PINS:%=-r %) || \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes $(PINS:%=-r %)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

models: $(STAMP) ## fetch the weights of the embedded engine (checked against pinned sha256)
	$(BIN)/omi-agent fetch-model embedded

demo: models ## the whole pipeline on this machine, on real speech (KEEP=1: leave it running, with a link to the page)
	$(BIN)/python -m demo $(if $(KEEP),--keep)

screenshots: models ## the page's pictures in docs/, made of the demo's conversation (needs chromium)
	$(BIN)/python -m demo.screenshots

# Most tests wait for real processes, not for a processor: more of them at once than there are cores.
WORKERS ?= 4

# Threads of numpy and torch would spin while they wait for a processor, and cost the other workers theirs.
test test-long test-postgres acceptance: export OPENBLAS_NUM_THREADS := 1
test test-long test-postgres acceptance: export OMP_WAIT_POLICY := PASSIVE

# Drawn examples are the same every time here (a commit passes or it does not); `make acceptance` draws new ones.
test: models ## the tests of every change, some minutes (ALL=1: the longer half too); what cannot run here is skipped by name
	$(BIN)/python -m pytest -m "not slow$(if $(ALL),, and not long)" -n $(WORKERS) --dist loadfile --hypothesis-profile=ci $(ARGS)

test-long: models ## the longer half, which must never break either: both engines, crashes, fuzzing
	$(BIN)/python -m pytest -m "long and not slow" -n $(WORKERS) --dist loadfile --hypothesis-profile=ci $(ARGS)

lint: $(STAMP) ## ruff, ruff format, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# Exit code 2 is an error of mypy's own: on a busy machine its second process is given 3 s to start.
	$(BIN)/mypy $(CHECKED) || { [ $$? = 2 ] && $(BIN)/mypy --num-workers 0 $(CHECKED); }

bench: models ## measure what the README claims
	$(BIN)/python -m benchmarks.bench_embedded $(ARGS)

bench-engine: models ## stock pyannote beside ours, on seeded weights and real speech (ARGS="60 300 3600")
	$(BIN)/python -m benchmarks.bench_engine $(ARGS)

bench-pages: $(STAMP) ## what ten open pages cost the bridge, with a thousand conversations (needs chromium)
	$(BIN)/python -m benchmarks.bench_pages $(ARGS)

bench-frames: $(STAMP) ## how long a frame of the page takes with three hours of 5,000 segments (needs chromium)
	$(BIN)/python -m benchmarks.bench_frames $(ARGS)

bench-agents: $(STAMP) ## how much sooner two agents finish a backlog than one (ARGS="--jobs 24 --sleep-s 2")
	$(BIN)/python -m benchmarks.bench_two_agents $(ARGS)

bench-fleet: $(STAMP) ## how fairly fifty agents share a backlog, and how soon it is done
	$(BIN)/python -m benchmarks.bench_fleet $(ARGS)

bench-cluster: $(STAMP) ## what QoS 1 costs on a cluster of three NATS servers beside QoS 0
	$(BIN)/python -m benchmarks.bench_cluster $(ARGS)

bench-floods: $(STAMP) ## how long an honest backend waits while another user floods the bridge
	$(BIN)/python -m benchmarks.bench_floods

bench-jobs: models ## a thousand jobs through one agent, and what its memory does (ARGS="--engine pyannote")
	$(BIN)/python -m benchmarks.bench_thousand_jobs $(ARGS)

bench-delivery: $(STAMP) ## what delivery costs, beside the HTTP design it replaces and bare paho (ARGS="--json")
	$(BIN)/python -m benchmarks.bench_delivery $(ARGS)

bench-omi: $(STAMP) ## how soon the webhooks of 200 users of OMI are answered, and what a kill -9 loses (ARGS="--seconds 20")
	$(BIN)/python -m benchmarks.bench_omi $(ARGS)

bench-omi-placement: $(STAMP) ## how much of the speech in OMI's audio is placed rightly, by arrival and with true times (needs ../shared/audio)
	$(BIN)/python -m benchmarks.omi_placement

bench-words: $(STAMP) ## words of real calls with the right speaker, with and without cutting segments
	$(BIN)/python -m benchmarks.bench_words $(ARGS)

bench-people: models ## who is recognised, and who falsely, by model, enrolment and room (ARGS="--quick")
	$(BIN)/python -m benchmarks.bench_people $(ARGS)

# On one thread, as the bridge multiplies (vps_bridge/matrix_threads.py): others spin, and count as processor time.
bench-linking bench-labels: export OPENBLAS_NUM_THREADS ?= 1

bench-linking: $(STAMP) ## confusion from linking jobs, by voice samples and by embeddings (ARGS="--engine embedded", needs ../shared)
	$(BIN)/python -m benchmarks.bench_linking $(ARGS)

bench-ledgers: $(STAMP) ## what a payload costs a ledger in SQLite and in PostgreSQL, and how queries grow (needs PostgreSQL)
	$(BIN)/python -m benchmarks.bench_ledgers $(ARGS)

bench-queue: $(STAMP) ## 10,000 queued payloads: memory and time a job (ARGS="--jobs 1000")
	$(BIN)/python -m benchmarks.bench_queue $(ARGS)

bench-bucket: $(STAMP) ## audio in a bucket beside the directory: time to put and to read, memory
	$(BIN)/python -m benchmarks.bench_bucket

bench-year: $(STAMP) ## a year of 16 hours a day in ledger and store: bytes, and how long commands take (ARGS="--days 20")
	$(BIN)/python -m benchmarks.bench_year $(ARGS)

bench-labels: models ## how true labels are: clock, words, linking, and chunks against one upload (ARGS="--quick", "--only chunks")
	$(BIN)/python -m benchmarks.bench_labels $(ARGS)

# What is a rule of delivery holds wherever the ledger is. Left out: the agent's and pure rules, which know no ledger,
# several bridges, whose ledger is always there, and chaos, which says for itself where it is.
RULES = $(shell grep -oE 'tests/(attacks|broker/test_broker|e2e|faults|vps_bridge)[a-z0-9_/]*\.py(::test_[a-z0-9_]*)?' docs/delivery-rules.md | grep -vE 'vps_bridge/rules|test_several|test_chaos' | sort -u)

test-postgres: models ## the tests of docs/delivery-rules.md with every ledger on PostgreSQL (needs PostgreSQL)
	OMI_TEST_LEDGER=postgresql $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --hypothesis-profile=ci $(RULES) $(ARGS)

acceptance: models ## every test, the slow proofs too, nothing skipped
	OMI_REQUIRE_ALL=1 $(BIN)/python -m pytest -o timeout=1800 $(ARGS)
	OMI_REQUIRE_ALL=1 $(MAKE) test-postgres

chaos: $(STAMP) ## kill everything, again and again, and judge what is left (JOBS=1000 SEED=7 ARGS="--plant settled")
	$(BIN)/python -m tests.faults --jobs $(or $(JOBS),1000) $(if $(SEED),--seed $(SEED)) $(ARGS)

pins: $(STAMP) ## write requirements/*.txt from what is installed, with the digests the package index lists
	$(BIN)/python requirements/pin.py

clean: ## remove what was built here; weights and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis out
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
