# The study from the command line. Every target that needs Python makes .venv and installs what is missing first.

PROFILE ?= laptop
ARGS ?=
# owner/name on GitHub: gives the book its links to Binder and Colab.
REPOSITORY ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed
BOOK := build/book/.built-$(subst /,--,$(REPOSITORY))
DRAWN := build/book-figures/.drawn
STARTUP := build/ipython/profile_default/startup
LAB := $(VENV)/etc/jupyter/labconfig/default_setting_overrides.json

.DEFAULT_GOAL := help
.PHONY: help figures test types pytest lab book check-book slides student nbgrader reference pretrain bench torture clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PROFILE=$(PROFILE) says how large; ARGS='…' goes to the command, as in: make figures ARGS='--only 03'"

figures: $(READY) ## Train and measure what is missing, redraw every figure (reference: redraw only)
	$(RUN) -m paper_lib figures --profile $(PROFILE) $(ARGS)

test: $(READY) ## Lint, check types and run the tests (ARGS='-m "not slow"' leaves out what takes seconds)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory -j 2 types pytest

types: $(READY)
	$(RUN) -m mypy

pytest: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

lab: $(READY) $(LAB) ## Open JupyterLab on a start page beside the notebooks
	PYTHONWARNINGS='ignore:IProgress not found' $(RUN) -m jupyterlab --ServerApp.root_dir=notebooks --MappingKernelManager.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/start.md $(ARGS)

book: $(BOOK) ## Build the book in build/book, from the committed tables

check-book: $(BOOK) ## Open every page of the book in a browser, without a network
	@bash .ci/browser
	$(RUN) -m pytest -m site -n 2 --dist loadfile tests/book/test_book_site.py tests/book/test_book_pages.py $(ARGS)

slides: $(DRAWN) ## Write the notebooks' slides and the lecture to build/slides, from the committed tables
	$(RUN) book/making/slides.py --executed data/executed/reference --figures build/book-figures/reference \
		--out build/slides

student: $(READY) ## Write the notebooks without solutions to build/student
	$(RUN) book/making/student.py $(ARGS)

nbgrader: $(READY) ## Write the exercises to build/nbgrader, as assignments that nbgrader grades
	$(RUN) book/making/graded.py --out build/nbgrader $(ARGS)

reference: $(READY) ## Train and measure what the committed results lack, and redraw (hours)
	$(RUN) -m paper_lib figures --profile reference --train $(ARGS)

pretrain: $(READY) ## Rebuild the shipped models (PROFILE=reference for all)
	$(RUN) -m paper_lib pretrain --profile $(PROFILE) $(ARGS)

bench: $(READY) ## Time our code against TRL and LAPACK; one alone: ARGS='train …', 'diagnose …' or 'watch …'
	$(RUN) tests/bench/command.py $(or $(ARGS),all --profile $(PROFILE))

torture: $(READY) ## Damage, kill and starve the commands, and count what goes wrong (SIZE=full: an hour)
	$(RUN) tests/torture/command.py --size $(or $(SIZE),small) $(ARGS)

REBUILT = $(filter-out build/student build/nbgrader,$(wildcard build/*)) $(filter-out data/models data/results,$(wildcard data/*)) \
	$(filter-out %/reference %/headroom %/budgets %/smollm2 %/widths,$(wildcard data/results/* figures/*))

clean: ## Remove runs, tables, figures, executed notebooks and the book, except the reference ones
	@for path in $(REBUILT); do echo "removing $$path"; rm -rf "$$path"; done

distclean: clean ## Remove .venv as well
	rm -rf $(VENV)

# The stamp is written last, so an installation that failed or was stopped is taken up again by the next call.
# pip would compile on one core.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: $(PYTHON) is Python %d.%d: \
	install 3.11 or newer, or name one: make PYTHON=python3.12" % sys.version_info[:2])'
	@rm -f $@
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	@$(RUN) -m pip install --quiet --no-compile -c constraints.txt -e '.[test,book]'
	@$(RUN) -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

# The book's own copy of the figures: what is committed changes by hand alone. Their kernels keep the values too.
$(DRAWN): $(READY) $(wildcard notebooks/*.py data/results/reference/*.parquet) \
		$(shell find paper_lib -type f -not -path '*/__pycache__/*')
	@mkdir -p $(STARTUP)
	@echo '__import__("drawn").keep_values("build/book-figures/values")' > $(STARTUP)/values.py
	IPYTHONDIR=build/ipython PYTHONPATH=book/making \
		$(RUN) -m paper_lib figures --profile reference --no-train --figures-dir build/book-figures
	@touch $@

$(BOOK): $(DRAWN) $(shell find book -type f -not -path '*/__pycache__/*')
	@rm -rf build/book
	$(RUN) book/making/assembled.py --executed data/executed/reference --figures build/book-figures/reference \
		--values build/book-figures/values --out build/book-source --repository '$(REPOSITORY)'
	$(RUN) -m sphinx -q -W --keep-going -j auto -b html -d build/book-doctrees -c book build/book-source build/book
	@touch $@
	@echo "the book is in build/book/index.html"

# A double click on notebooks/*.py opens a notebook, on start.md the page, and no news are fetched; all inside .venv.
$(LAB): $(READY) .binder/lab.json
	@mkdir -p $(@D)
	@cp .binder/lab.json $@
