# The front door: every target first makes .venv when it is missing or its lock file has changed.
PYTHON ?= python3
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)
TASK ?=
NAME ?=
FILE ?=
SLOW ?=
N ?=
SEED ?=
ID ?=
ROWS ?=
AGAINST ?=
S ?=
JOBS ?= 1
EXP ?=
VERSION ?=
PULL = $(if $(shell grep -s 'remote *= *' .dvc/config .dvc/config.local),--pull)
FORMAT ?=
HOST ?=
PORT ?=

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1|/' | column -t -s '|'

setup: .venv/ready ## the environment alone: .venv from the lock file, CPU or CUDA by what the machine has

repro: .venv/ready ## the whole pipeline; TASK=name makes that task the active one
	@$(if $(TASK),$(PY) -m potstill.commands.profile --task $(TASK) && )$(PY) -m dvc repro $(PULL)

exp: .venv/ready ## an experiment: S="lora_rank=16 num_train_epochs=5"
	@$(PY) -m dvc exp run $(PULL) $(S:%=--set-param '%')

sweep: .venv/ready ## an experiment for each value, one after the other: S="lora_rank=4,8,16,32"; JOBS=2 two at once
	@$(PY) -m potstill.commands.experiments $(JOBS) $(S:%='%')

compare: .venv/ready ## the experiments in a table, with intervals; what may be chance is marked
	@$(PY) -m potstill.commands.experiments

eval: .venv/ready ## predict and score only, with the model that is there
	@$(PY) -m potstill.commands.evaluate

tour: .venv/ready ## every task from clean to metrics, one after the other, and a table of them all
	@$(PY) -m potstill.commands.tour

scale-curve: .venv/ready ## the active task on more and more training rows, the same test rows: ROWS="800 2000"
	@$(if $(TASK),$(PY) -m potstill.commands.profile --task $(TASK) && )$(PY) -m potstill.commands.scale_curve $(ROWS)

report: .venv/ready ## reports/<task>/report.html, one page to show, and an index of all tasks; TASK=name makes that task the active one
	@$(if $(TASK),$(PY) -m potstill.commands.profile --task $(TASK) && )$(PY) -m potstill.report.pages

gate: .venv/ready ## for CI: fails where the student is below min_accuracy, or worse than the last commit by more than noise; AGAINST=origin/main
	@$(PY) -m potstill.commands.gate $(if $(AGAINST),--against $(AGAINST))

check: .venv/ready ## is dvc.lock up to date with code and parameters? needs no data: for CI
	@$(PY) -m potstill.commands.verify --check

verify: .venv/ready ## hash every output and every object of DVC's cache again; says what is wrong and what mends it
	@$(PY) -m potstill.commands.verify

share: .venv/ready ## send the results of every task to DVC's remote; EXP=name an experiment
	@$(PY) -m potstill.commands.share push $(EXP)

pull: .venv/ready ## fetch what others have shared, and fill the journal from it; EXP=name an experiment
	@$(PY) -m potstill.commands.share pull $(EXP)

release: .venv/ready ## the student of the active task with a model card, tagged: VERSION=v1.0.0
	@$(PY) -m potstill.commands.release $(VERSION)

serve: .venv/ready ## the student behind an OpenAI-compatible server, key in SERVE_API_KEY: TASK=address PORT=8000 HOST=127.0.0.1 FORMAT=int8
	@exec $(PY) -m potstill.serving.serve $(if $(TASK),--task $(TASK)) $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(FORMAT),--format $(FORMAT))

bench-serve: .venv/ready ## the server under load beside bare vLLM, with and without speculation: minutes; TASK=address
	@$(PY) -m bench.serve $(if $(TASK),--task $(TASK))

quantize: .venv/ready ## the student with fewer bits a weight, held against itself: FORMAT=int8 (CPU), gptq or awq (GPU), gguf (llama.cpp)
	@$(if $(filter int8,$(or $(FORMAT),int8)),$(PYTHON) -m potstill.commands.setup quantize && )$(PY) -m potstill.serving.quantize $(FORMAT) $(if $(TASK),--task $(TASK))

quote: .venv/ready ## what the teacher would cost, before a call is made
	@$(PY) -m potstill.commands.quote

fill: .venv/ready ## fill the journal from the answers that came with the data
	@$(PY) -m potstill.commands.fill

validate: .venv/ready ## your own rows against the rules, every violation with its line: FILE=rows.jsonl
	@$(PY) -m potstill.dataset.own_rows "$(FILE)"

import: .venv/ready ## your own rows become the task's: FILE=inputs.json TASK=address
	@$(PY) -m potstill.commands.import_rows "$(FILE)" $(TASK)

review: .venv/ready ## judge and rank answers yourself on a local page; N=200 draws more of them, SEED=1 others
	@$(PY) -m potstill.review.server $(if $(TASK),--task $(TASK)) $(if $(N),--rows $(N)) $(if $(SEED),--seed $(SEED))

trace: .venv/ready ## one row's life: ID=9d81, the start of its id
	@$(PY) -m potstill.commands.trace $(if $(TASK),--task $(TASK)) '$(ID)'

new-task: .venv/ready ## a task of your own, with a small example that runs at once: NAME=invoice
	@$(PY) -m potstill.commands.new_task '$(NAME)'

profile: .venv/ready ## write a recipe into params.yaml, comments kept: NAME=standard, quality, fast or a task's own, such as NAME=published TASK=address
	@$(PY) -m potstill.commands.profile $(NAME) $(TASK)

test: .venv/ready ## lint, types, tests; SLOW=1 adds the real runs (DVC, ms-swift, vLLM)
	@$(PY) -m ruff check && $(PY) -m ruff format --check && hadolint Dockerfile && $(PY) -m mypy && $(PY) -m pytest $(if $(SLOW),,-m "not slow")

base: .venv/ready ## make models/tiny-base again from scratch (hours)
	@$(PY) -m base.train

lock: .venv/ready ## resolve requirements/*.in again into the lock files
	@$(PYTHON) -m potstill.commands.setup lock

.venv/ready: requirements/cpu.lock requirements/cuda.lock requirements/dev.lock
	@$(PYTHON) -m potstill.commands.setup

.PHONY: help setup repro exp sweep compare tour scale-curve eval report gate check verify share pull release serve bench-serve quantize quote fill validate import review trace new-task profile test base lock
