# A target is one line that you can copy. Variables: DATASET, PRESET, SHARD, GPUS, WORK, MANIFESTS, SET="key=value …".
DATASET   ?= mini
PRESET    ?= mini
GPUS      ?= 1
WORK      ?= work
MANIFESTS ?= manifests
PYTHON    ?= python3

BIN  := .venv/bin
ARGS  = --dataset $(DATASET) --preset $(PRESET) --work $(WORK) --manifests $(MANIFESTS) $(foreach s,$(SET),--set $(s))
WHICH = $(if $(SHARD),--shard $(SHARD))
# One process on one device, or one a GPU by accelerate.
RUN   = $(if $(filter 1,$(GPUS)),$(BIN)/python,$(BIN)/accelerate launch --multi_gpu --num_machines 1 \
        --num_processes $(GPUS) --mixed_precision no --dynamo_backend no)

.DEFAULT_GOAL := help
.PHONY: help install demo captions reconstruct train evaluate report status verify gc test lint

help: ## print the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## make .venv and install sare into it

$(BIN)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: install ## run every stage on the embedded default and print the ACC/AUC table (a few minutes on two cores)
	$(BIN)/sare mini
	$(BIN)/sare index --layout genimage --root data/mini --name mini --manifests $(MANIFESTS) --shard-size 32
	$(BIN)/sare caption     --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)
	$(BIN)/sare reconstruct --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)
	$(BIN)/sare train       --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)
	$(BIN)/sare evaluate    --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)
	$(BIN)/sare status --work $(WORK) --manifests $(MANIFESTS)
	$(BIN)/sare report      --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)

captions: install ## caption images: make captions DATASET=genimage PRESET=paper GPUS=8
	$(RUN) -m stages.caption $(ARGS) $(WHICH)

reconstruct: install ## reconstruct them into SARE maps: make reconstruct SHARD=3, or all that is open
	$(RUN) -m stages.reconstruct $(ARGS) $(WHICH)

train: install ## train the detector
	$(RUN) -m stages.train $(ARGS)

evaluate: install ## predict the test split, print ACC and AUC
	$(RUN) -m stages.evaluate $(ARGS) $(WHICH)

report: install ## one page of pictures, tables and figures: WORK/<dataset>/report/<fp>/index.html
	$(BIN)/python -m stages.report $(ARGS)

status: install ## per stage: done, open, running, failed, stale (and why), images/s, ETA
	$(BIN)/sare status --work $(WORK) --manifests $(MANIFESTS)

verify: install ## read back what records promise
	$(BIN)/sare verify --work $(WORK) --manifests $(MANIFESTS)

gc: install ## list what no record names
	$(BIN)/sare gc --work $(WORK) --manifests $(MANIFESTS)

test: install ## run the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
