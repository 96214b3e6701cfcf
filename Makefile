# The whole job, and its parts. `make` alone: install, data, features, classify. `make help` lists everything.

DATASET  ?= mnist5k
IMAGES   ?= data/$(DATASET)
BACKBONE ?= efficientnet_lite0
HEADS    ?= all
CACHE    ?= data/cache
OUT      ?=
RUN      ?= data/runs/latest
PYTHON   ?= python3
# More options for the command, for instance ARGS="--weights IMAGENET1K_V1 --pooling gem".
ARGS     ?=

VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/installed
# The package as one folder of links, for tools that do not follow setuptools' package-dir.
LINKS    := $(VENV)/src
COMMAND  := $(BIN)/featurecache
OUT_OPTION := $(if $(OUT),--out "$(OUT)")
# Exit code 3 says: finished, but something is not in the result, such as an image. It is listed; the job goes on.
GO_ON    := || [ $$? -eq 3 ]

.DEFAULT_GOAL := all
.PHONY: all help install data features classify run predict finetune report picture test lint torture survey compat bench gpu clean

all: features classify  ## the whole job on DATASET: install, data, features, classify

help:  ## this list
	@echo 'make [TARGET] [IMAGES=folder] [BACKBONE=name] [HEADS=a,b] [CACHE=folder] [OUT=folder] [RUN=folder] [DATASET=name] [ARGS=...]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(STAMP)  ## a virtual environment in .venv with everything in it
	@echo '$(VENV): installed'

# Modules are compiled on all cores, which pip does on one; a few are templates that do not compile.
$(STAMP): pyproject.toml
	@echo 'installing into $(VENV): some minutes, 6.5 GB on Linux, most of it torch'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

data: $(STAMP)  ## the images of DATASET (mnist5k, fashion-mnist, digits) as a folder of PNG files
	@$(BIN)/python -m featurecache.bench.demo_data $(DATASET) data/$(DATASET)

# Only the data sets above can be made; IMAGES of your own are there already.
DATA := $(if $(filter data/$(DATASET),$(IMAGES)),data)

features: $(STAMP) $(DATA)  ## every image of IMAGES gets its vector, once
	@$(COMMAND) extract "$(IMAGES)" --backbone $(BACKBONE) --cache "$(CACHE)" $(ARGS) $(GO_ON)

classify: $(STAMP)  ## train and compare HEADS on the kept vectors
	@$(COMMAND) classify "$(IMAGES)" --backbone $(BACKBONE) --heads $(HEADS) --cache "$(CACHE)" $(OUT_OPTION) $(ARGS) $(GO_ON)

run: features classify  ## features, then classify

predict: $(STAMP)  ## label IMAGES with the best head of RUN
	@$(COMMAND) predict "$(RUN)" "$(IMAGES)" $(GO_ON)

finetune: $(STAMP)  ## train the network of RUN on, on IMAGES (ARGS="--unfreeze all --size 96")
	@$(COMMAND) finetune "$(IMAGES)" --from "$(RUN)" --cache "$(CACHE)" $(OUT_OPTION) $(ARGS) $(GO_ON)

report: $(STAMP)  ## write report.html of RUN and name it (ARGS=--open shows it)
	@$(COMMAND) report "$(RUN)" $(ARGS)

picture: report  ## the picture of the report in the README, from RUN; needs chromium and chromium-driver
	@$(BIN)/python tests/tools/picture.py "$(RUN)/report.html" data/report.png

# Modules are compiled once and not by every process that a test starts, also where Python is told to keep nothing.
test: $(STAMP)  ## all tests, in three processes of one thread each
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)  ## style, types and the import contract
	@rm -rf $(LINKS) && mkdir -p $(LINKS)/featurecache
	@cd $(LINKS)/featurecache && ln -s ../../../pipeline/* ../../../extract ../../../classify .
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && MYPYPATH=$(LINKS) $(BIN)/mypy && PYTHONPATH=$(LINKS) $(BIN)/lint-imports --no-logo

torture: $(STAMP)  ## kill 100 extractions, 100 classifies and 20 fine-tunes, four extractions at once, 4,000 grouped data sets
	@$(BIN)/python tests/tools/torture.py 100 100 20 2000
	@$(BIN)/python -m pytest -m slow tests/test_classify/evaluation/test_clustered.py

survey: $(STAMP)  ## what `make test` leaves out: every network there is, benches
	@$(BIN)/python -m pytest -m slow -s --deselect tests/test_classify/evaluation/test_clustered.py

compat: $(STAMP)  ## the same pixels and vectors by the oldest and newest libraries, at every instruction set of torch
	@$(BIN)/python tests/tools/compat.py $(ARGS)

bench: $(STAMP) $(DATA)  ## our extraction and heads against what is usual, on this machine; ARGS="--full" goes to the heads
	@$(COMMAND) bench extract --backbone $(BACKBONE) --out data/bench-extract.json
	@$(COMMAND) bench heads --out data/bench-heads.json $(ARGS)
	@$(COMMAND) bench finetune
	@$(COMMAND) bench warm --out data/bench-warm.json
	@$(COMMAND) bench pipeline --out data/bench-pipeline.json
	@$(COMMAND) extract "$(IMAGES)" --backbone $(BACKBONE) --cache "$(CACHE)" --quiet $(GO_ON)
	@$(COMMAND) bench rerun --images "$(IMAGES)" --backbone $(BACKBONE) --cache "$(CACHE)" --out data/bench-rerun.json
	@$(COMMAND) bench quick --backbone $(BACKBONE) --out data/bench-quick.json

# By PYTHON as it is, without an installation: a machine with a GPU often has a torch of its own.
gpu:  ## on a machine with a GPU, 8 minutes: the tests of CUDA, and a table of rates, also in gpu.json
	@$(PYTHON) tests/tools/gpu.py $(ARGS)

clean:  ## remove the environments, the made data sets and tool caches; features and runs stay
	rm -rf $(VENV) .venv-compat data/mnist5k data/fashion-mnist data/digits .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@echo 'kept: data/cache and data/runs'
