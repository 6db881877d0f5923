# The front door: every target first makes .venv when it is missing or its lock file has changed.
# TASK=name works in the folder of that task; without it in the root's own, the main one.
PYTHON ?= python3
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
POTSTILL = $(PY) -m potstill $(if $(TASK),--task $(TASK))
NONE = error: there is no $(PYTHON), expected Python 3.11 to 3.13: install it, or `make PYTHON=…`
THERE = $(if $(shell command -v $(PYTHON) 2>&1),,$(error $(NONE)))
SETUP = $(THERE)$(PYTHON) -m potstill.commands.setup
LINT = ruff check && ruff format --check && lint-imports && hadolint Dockerfile
JOBS ?= 1
FAST = -n logical --maxprocesses 4 --dist loadfile -m "not slow"
SLOW_ONES = -n logical --maxprocesses 2 --dist loadfile -m slow # with models: 4 GB each
AS = # not make's own, the assembler
one = '$(subst ','\'',$(1))' # one word for the shell, whatever signs it has
BEHIND = $(if $(CASCADE),--cascade) $(STREAM:%=--stream %) $(DOWN:%=--down %) \
	$(CONFIDENCE:%=--confidence %) \
	$(if $(STUDENT),--student $(call one,$(STUDENT))) \
	$(if $(CANARY),--canary $(call one,$(CANARY)) $(SHARE:%=--share %))
ROWS_AS = $(foreach option,AS MAP SEVERAL DRY,\
	$(if $($(option)),--$(option)=$(call one,$($(option)))))

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1|/' | column -t -s '|'

setup: .venv/ready ## the environment alone: .venv from the lock file, CPU or CUDA by what there is

repro: .venv/ready ## the whole pipeline of a task, ending with the result: TASK=support
	@$(POTSTILL) repro

eval: .venv/ready ## predict and score only, with the model that is there
	@$(POTSTILL) eval

report: .venv/ready ## reports/report.html, one page to show, and an index of all tasks
	@$(POTSTILL) report

exp: .venv/ready ## an experiment: S="lora_rank=16 num_train_epochs=5"
	@$(POTSTILL) exp $(call one,$(S))

sweep: .venv/ready ## an experiment for each value: S="lora_rank=4,8,16"; JOBS=2, or ROWS=400
	@$(POTSTILL) sweep $(ROWS:%=--rows %) $(JOBS) $(call one,$(S))

compare: .venv/ready ## the experiments in a table, with intervals; what may be chance is marked
	@$(POTSTILL) compare

tour: .venv/ready ## every task from clean to metrics, one after the other, and a table of them all
	@$(POTSTILL) tour

scale-curve: .venv/ready ## a task on more and more training rows: ROWS="800 2000"
	@$(POTSTILL) scale-curve $(ROWS)

gate: .venv/ready ## for CI: fails where the student is worse than it must be; AGAINST=origin/main
	@$(POTSTILL) gate $(AGAINST:%=--against %)

check: .venv/ready ## is dvc.lock up to date with code and parameters? needs no data: for CI
	@$(POTSTILL) check

verify: .venv/ready ## hash every output and DVC's cache again; says what is wrong and what mends it
	@$(POTSTILL) verify

share: .venv/ready ## send the results of every task to DVC's remote; EXP=name an experiment
	@$(POTSTILL) share $(EXP)

pull: .venv/ready ## fetch what others have shared, and fill the journal; EXP=name an experiment
	@$(POTSTILL) pull $(EXP)

release: .venv/ready ## the student with a model card, tagged: VERSION=v1.0.0
	@$(POTSTILL) release $(VERSION)

serve: .venv/ready ## an OpenAI-compatible server, key in SERVE_API_KEY: PORT=8000 HOST= CASCADE=1
	@exec $(POTSTILL) serve $(HOST:%=--host %) $(PORT:%=--port %) $(FORMAT:%=--format %) $(BEHIND)

confidence: .venv/ready ## a threshold: of which answers the student is not sure enough
	@$(POTSTILL) confidence

canary: .venv/ready ## the student beside the one on trial: DO=promote, DO=rollback or DO=auto
	@$(POTSTILL) canary $(DO:%=--do %)

bench-serve: .venv/ready ## the server under load beside bare vLLM: minutes
	@$(POTSTILL) bench-serve

quantize: .venv/ready ## fewer bits a weight: FORMAT=int8, gptq, gguf or gguf-q4_k_m
	@$(SETUP) quantize && $(POTSTILL) quantize $(FORMAT)

doctor: .venv/ready ## what can go wrong, before it costs anything: files, model, endpoint
	@$(POTSTILL) doctor

quote: .venv/ready ## what the teacher would cost, before a call is made
	@$(POTSTILL) quote

fill: .venv/ready ## fill the journal from the answers that came with the data
	@$(POTSTILL) fill

validate: .venv/ready ## your own rows, every violation with its line: FILE=rows.csv, as for import
	@$(POTSTILL) validate $(call one,$(FILE)) $(ROWS_AS)

import: .venv/ready ## your own rows become the task's: FILE=rows.csv AS=gold MAP="text=a" DRY=1
	@$(POTSTILL) import $(call one,$(FILE)) $(ROWS_AS)

review: .venv/ready ## judge answers yourself on a local page; N=200 draws more, SEED=1 others
	@$(POTSTILL) review $(N:%=--rows %) $(SEED:%=--seed %)

try: .venv/ready ## ask base, student and teacher the same on a local page
	@$(POTSTILL) try

harvest: .venv/ready ## served inputs the student found hard become seeds: N=100 SINCE=date DRY=1
	@$(POTSTILL) harvest $(N:%=--rows %) $(SINCE:%=--since %) $(DRY:%=--dry %)

drift: .venv/ready ## has what is asked changed? exit code 1 when it has: SINCE=date
	@$(POTSTILL) drift $(SINCE:%=--since %)

trace: .venv/ready ## one row's life: ID=9d81, the start of its id
	@$(POTSTILL) trace $(call one,$(ID))

track: .venv/ready ## the finished run's metrics to MLflow, at MLFLOW_TRACKING_URI
	@$(POTSTILL) track

new-task: .venv/ready ## a task of your own, with a small example that runs at once: NAME=invoice
	@$(POTSTILL) new-task $(call one,$(NAME))

pipelines: .venv/ready ## copy the root's dvc.yaml into every task's folder
	@$(POTSTILL) pipelines

profile: .venv/ready ## write a recipe into params.yaml: NAME=standard, quality, fast, published
	@$(POTSTILL) profile $(NAME)

test: .venv/ready ## lint, types, tests; SLOW=1 adds the real runs (DVC, ms-swift, vLLM)
	@$(LINT) && $(PY) -m mypy && $(PY) -m pytest $(FAST) $(if $(SLOW),&& $(PY) -m pytest $(SLOW_ONES))

base: .venv/ready ## make models/tiny-base again from scratch (hours)
	@$(PY) -m base.train

lock: .venv/ready ## resolve requirements/*.in again into the lock files
	@$(POTSTILL) lock

.venv/ready: requirements/cpu.lock requirements/cuda.lock requirements/dev.lock
	@$(SETUP)

.PHONY: help setup repro eval report exp sweep compare tour scale-curve gate check verify share
.PHONY: pull release serve bench-serve quantize doctor quote fill validate import review try
.PHONY: harvest drift confidence canary trace track new-task pipelines profile test base lock
