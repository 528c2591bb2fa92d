# A target is one line that you can copy. Variables: DATASET, PRESET, SHARD, TRAINED_ON (dataset whose detector evaluate
# and report take), RUN (a name for the run), GPUS (a node), NODES, NODE and MAIN (which node this is, and where node 0
# listens), LAUNCH=slurm and with it DRY_RUN=1, WORK, MANIFESTS, SET="key=value …", IMAGE and DETECTOR (of detect and
# serve), JOBS (of study and mini-world), DETECTORS and SEEDS (of compare) and ARTICLES (folder of Fashion-MNIST's .gz
# files).
DATASET   ?= mini
PRESET    ?= mini
GPUS      ?= 1
NODES     ?= 1
NODE      ?= 0
MAIN      ?=
WORK      ?= work
MANIFESTS ?= manifests
DETECTOR  ?= demo
PYTHON    ?= python3
JOBS      ?= 2
DETECTORS ?= image map difference difference_in_difference sare drct conv_b univfd gramnet dire de_fake linear_probe c2p_clip aeroblade
SEEDS     ?= 0
ARTICLES  ?= /usr/share/datasets/fashion-mnist

BIN  := .venv/bin
ARGS  = --dataset $(DATASET) --preset $(PRESET) --work $(WORK) --manifests $(MANIFESTS) $(SETS)
SETS  = $(foreach s,$(SET),--set $(s))
# As it was given: a quote or $ in it is a part of the name.
NAME  = '$(subst ','\'',$(or $(value IMAGE),$(error name an image: make detect IMAGE=photo.jpg)))'
MINI  = --dataset mini --preset mini --work $(WORK) --manifests $(MANIFESTS)
DEMO  = $(MINI) --run demo
# A detector that reads maps with and without captions, so that both are made.
BOTH  = --set detector.detector=difference
ZERO  = detector.semantic_input=zero
ZEROS = $(MINI) --run zeros --set $(ZERO)
WHICH = $(if $(SHARD),--shard $(SHARD))
NAMED = $(if $(RUN),--run $(RUN))
WHOSE = $(if $(TRAINED_ON),--trained-on $(TRAINED_ON))
# One process on one device, or one a GPU by accelerate, which gives each a thread pool of OMP_NUM_THREADS, or of 1.
NET   = $(if $(filter 1,$(NODES)),--main_process_port 0,--machine_rank $(NODE) $(foreach m,$(or $(MAIN),$(error \
        NODES=$(NODES) needs MAIN=host:port of node 0)),--main_process_ip $(word 1,$(subst :, ,$m)) --main_process_port \
        $(word 2,$(subst :, ,$m))))
PYTHONS = $(if $(filter-out 1,$(GPUS) $(NODES)),$(BIN)/accelerate launch --multi_gpu --num_machines $(NODES) $(NET) \
        --num_processes $(shell expr $(GPUS) \* $(NODES)) --mixed_precision no --dynamo_backend no,$(BIN)/python)

# They wait for processes, daemons and time-outs more than they compute, so more of them run at a time than there are cores.
CLUSTER_TESTS := tests/slurm tests/processes tests/objectstore tests/faults

# In this process (or these), or with LAUNCH=slurm as tasks of Slurm, at most GPUS of them at a time.
SUBMIT = $(BIN)/sare submit $(1) $(ARGS) $(NAMED) $(2) $(if $(filter-out file,$(origin GPUS)),--gpus $(GPUS)) \
        $(if $(DRY_RUN),--dry-run)
HERE   = $(if $(DRY_RUN),$(error DRY_RUN goes with LAUNCH=slurm),$(PYTHONS) -m stages.$(1) $(ARGS) $(NAMED) $(2))
STAGE  = $(if $(LAUNCH),$(if $(filter slurm,$(LAUNCH)),$(SUBMIT),$(error LAUNCH=$(LAUNCH): only slurm is known)),$(HERE))

.DEFAULT_GOAL := help
.PHONY: help install demo compare study mini-world captions reconstruct train evaluate detect serve report status verify gc \
        plan retry-failed bench bench-scale soak test test-cluster lint

help: ## print the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(BIN)/.installed ## make .venv and install sare into it

# Bytecode is left to the first import: of most files there is none. Without it a stage starts much later, so
# containers that forbid it, as many do, do not forbid it here.
unexport PYTHONDONTWRITEBYTECODE
$(BIN)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	touch $@

demo: install ## index, caption, reconstruct, train, evaluate and report on the scale model (3 minutes on two cores)
	$(BIN)/sare mini
	$(BIN)/sare index --layout genimage --root data/mini --name mini --manifests $(MANIFESTS) --shard-size 100
	$(BIN)/sare caption     $(DEMO) $(BOTH)
	$(BIN)/sare reconstruct $(DEMO) $(BOTH)
	$(BIN)/sare train       $(DEMO)
	$(BIN)/sare evaluate    $(DEMO)
	$(BIN)/sare train       $(ZEROS)
	$(BIN)/sare evaluate    $(ZEROS)
	$(BIN)/sare report      $(DEMO) --control "the image alone (a map of zeros)=$(ZERO)"

compare: install ## train and evaluate DETECTORS on the scale model, SEEDS of each, and put them side by side
	$(BIN)/sare mini
	$(BIN)/sare index --layout genimage --root data/mini --name mini --manifests $(MANIFESTS) --shard-size 100
	set -e; for detector in $(DETECTORS); do for stage in caption reconstruct; do \
	    $(BIN)/sare $$stage $(MINI) $(SETS) --set detector.detector=$$detector; done; \
	    for seed in $(SEEDS); do for stage in train evaluate; do \
	    $(BIN)/sare $$stage $(MINI) $(SETS) --set detector.detector=$$detector --set train.seed=$$seed; done; done; done
	$(BIN)/sare compare $(DETECTORS) --dataset mini --work $(WORK) --manifests $(MANIFESTS)

study: install ## measure the method and its controls on the whole scale model, tables to benchmarks/ (hours; resumes)
	$(BIN)/sare mini --full
	$(BIN)/sare index --layout genimage --root data/miniature --name miniature --manifests $(MANIFESTS)
	$(BIN)/sare index --layout genimage --root data/miniature-null --name miniature-null --manifests $(MANIFESTS)
	$(BIN)/sare study --dataset miniature --preset mini --work $(WORK) --manifests $(MANIFESTS) --jobs $(JOBS) \
	    --classifier models/mini/semantic-encoder --oracle data/miniature/oracle-captions.csv --draws 4
	$(BIN)/sare study --dataset miniature-null --preset mini --set reconstruct.model=models/mini-null/diffusion \
	    --work $(WORK) --manifests $(MANIFESTS) --jobs $(JOBS) --oracle data/miniature-null/oracle-captions.csv --draws 4 \
	    --only fairness --only delta --only variants

mini-world: install ## train the scale model's models and generators anew, from Fashion-MNIST (hours; resumes)
	$(BIN)/python -m sare_core.miniature --articles $(ARTICLES) --work $(WORK)/mini-world --jobs $(JOBS)
	$(BIN)/python -m sare_core.miniature --articles $(ARTICLES) --work $(WORK)/mini-world --premise benchmarks/miniature

captions: install ## caption images: make captions DATASET=genimage PRESET=paper GPUS=8
	$(call STAGE,caption,$(WHICH))

reconstruct: install ## reconstruct them into SARE maps: make reconstruct SHARD=3, or all that is open
	$(call STAGE,reconstruct,$(WHICH))

train: install ## train the detector
	$(call STAGE,train)

evaluate: install ## predict the test split, print ACC and AUC: make evaluate DATASET=forensynths TRAINED_ON=genimage
	$(call STAGE,evaluate,$(WHICH) $(WHOSE))

detect: install ## examine images by a detector: make detect IMAGE=photo.jpg DETECTOR=demo (or a folder, URL, hub id)
	$(BIN)/sare detect $(NAME) --detector $(DETECTOR) --work $(WORK) $(SETS)

serve: install ## the same as a page and an endpoint, at http://127.0.0.1:8000
	$(BIN)/sare serve --detector $(DETECTOR) --work $(WORK) $(SETS)

report: install ## one page of pictures, tables and figures: WORK/<dataset>/report/<fp>/index.html
	$(BIN)/python -m stages.report $(ARGS) $(NAMED) $(WHOSE)

status: install ## per stage: done, open, running, failed, stale (and why), images/s, ETA
	$(BIN)/sare status --work $(WORK) --manifests $(MANIFESTS)

verify: install ## read everything back and compare it with the records
	$(BIN)/sare verify --work $(WORK) --manifests $(MANIFESTS)

gc: install ## list files that no record names
	$(BIN)/sare gc --work $(WORK) --manifests $(MANIFESTS)

plan: install ## what there is to do, and what it takes: FLOPs, disk, GPU-hours
	$(BIN)/sare plan $(ARGS)

retry-failed: install ## try the images again that failed, and only those
	$(BIN)/sare retry-failed $(ARGS) $(WHICH)

bench: install ## how close the stages come to the bare models (bars), then this device's images/s; tables to benchmarks/engine
	$(BIN)/sare mini
	$(BIN)/python -m benchmarks.engine
	$(BIN)/sare bench --preset $(PRESET) --out benchmarks/engine

bench-scale: install ## measure the bars of a cluster run, tables to benchmarks/scale (wants Slurm)
	$(BIN)/python -m benchmarks.scale

soak: install ## kill a thousand runs at random moments and compare bytes
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.soak

test: install ## run the tests but those of test-cluster, one process a core (6 minutes on two)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(CLUSTER_TESTS:%=--ignore=%)

test-cluster: install ## run the tests of Slurm, object stores, many processes and kills
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(CLUSTER_TESTS)

lint: install ## ruff, mypy, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
