# Two commands: `make demo` and `make test`. Each sets up what it needs, once.
# Another interpreter: make demo PYTHON=/path/to/python3.12
# More arguments:      make demo ARGS="--seed 1"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo reproduce test test-slow test-io test-beam test-weights test-runtimes test-mteb test-newest test-matrix test-wheel lint docs docs-deploy clean

VENV := .venv
VENV_IO := .venv-io
VENV_BEAM := .venv-beam
VENV_WEIGHTS := .venv-weights
VENV_RUNTIMES := .venv-runtimes
VENV_MTEB := .venv-mteb
VENV_NEWEST := .venv-newest
VENV_DOCS := .venv-docs
VENV_WHEEL := .venv-wheel
VENV_MATRIX := .venv-matrix
BIN := $(VENV)/bin
ARGS ?=
COMMA := ,
TYPED := $(addprefix tfavmae/,files.py config data building media tasks weights serving)
QUIET := TF_CPP_MIN_LOG_LEVEL=3
# A process gets to 6 GiB; files stay whole, because tests of one share what they made.
PARALLEL := --numprocesses=auto --maxprocesses=2 --dist=loadfile
# Fast, and the ones that a new Keras would break.
NEWEST_TESTS := tests/test_private_hooks.py tests/layers tests/models tests/objectives

# Same range as python_requires in setup.cfg: TensorFlow has wheels for these.
PYTHONS := 3.11 3.12 3.13
PYTHONS_IO := 3.11 3.12
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)

# $(call make_venv,FOLDER,EXTRAS,VERSIONS): the first candidate that fits makes the environment.
define make_venv
	@chosen=; seen=; for python in $(CANDIDATES); do \
	  found=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  seen="$$seen $$python=$$found"; \
	  case " $(3) " in *" $$found "*) ;; *) continue;; esac; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { seen="$$seen(no venv)"; continue; }; \
	  chosen=$$python; break; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "error: needs one of Python $(3), with its venv module; found:$${seen:- none}. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "Installing into $(1) with $$("$$chosen" --version) (a few minutes, once)"; \
	"$$chosen" -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@PYTHONWARNINGS=ignore $(1)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(2)]'
	@touch $(1)/.installed
endef

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## make .venv with tfavmae and the developers' tools in it

demo: $(VENV)/.installed ## from generated videos to runs/demo/report.html (minutes, on 2 cores)
	@$(QUIET) $(BIN)/tfavmae demo $(ARGS)

reproduce: $(VENV)/.installed ## the claims of the papers on tiny models, to runs/reproduction (an hour, on 2 cores)
	@$(QUIET) $(BIN)/python benchmarks/reproduce.py $(ARGS)

test: $(VENV)/.installed ## the tests (12 GiB)
	@$(QUIET) $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: $(VENV)/.installed ## the tests that train, build or compile for minutes (1 to 2 hours, 16 GiB)
	@$(QUIET) $(BIN)/python -m pytest -m slow $(ARGS)

test-io: $(VENV_IO)/.installed ## the tests of tensorflow-io, in an environment with TensorFlow 2.16
	@$(QUIET) $(VENV_IO)/bin/python -m pytest -m io tests/io $(ARGS)

test-beam: $(VENV_BEAM)/.installed ## the tests of Apache Beam, in an environment of their own
	@$(QUIET) $(VENV_BEAM)/bin/python -m pytest -m beam $(ARGS)

# The files by their names: PyTorch (2.14) crashes where TensorFlow was imported first,
# as other tests do when they are collected.
test-weights: $(VENV_WEIGHTS)/.installed ## the tests with files of PyTorch and Flax, in an environment of their own
	@$(QUIET) $(VENV_WEIGHTS)/bin/python -m pytest -m weights tests/weights/test_genuine_files.py tests/benchmarks/test_torch_step.py $(ARGS)

test-runtimes: $(VENV_RUNTIMES)/.installed ## the exports for ONNX Runtime and OpenVINO, in an environment of their own
	@$(QUIET) $(VENV_RUNTIMES)/bin/python -m pytest -m runtimes tests/serving/test_runtimes.py $(ARGS)

# By its name, as above; -P, since the folder `datasets` would hide the package of MTEB.
test-mteb: $(VENV_MTEB)/.installed ## the test of the MTEB model, in an environment of its own
	@$(QUIET) $(VENV_MTEB)/bin/python -P -m pytest -m mteb tests/tasks/test_mteb_model.py $(ARGS)

# Both packages hold the module `keras`; --no-deps, since setup.cfg does not allow this one.
test-newest: $(VENV_NEWEST)/.installed ## tests of layers, models and private hooks with the nightly Keras
	@$(VENV_NEWEST)/bin/python -m pip uninstall --quiet --yes keras keras-nightly
	@$(VENV_NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --pre keras-nightly
	@$(QUIET) $(VENV_NEWEST)/bin/python -c 'import keras; print("Keras", keras.__version__)'
	@$(QUIET) $(VENV_NEWEST)/bin/python -m pytest $(NEWEST_TESTS) $(ARGS)

test-matrix: ## fast tests with the newest and the oldest of what setup.cfg allows, on each Python (an hour, 20 GB)
	@bash tests/matrix.sh $(VENV_MATRIX) $(addprefix python,$(PYTHONS)) $(ARGS)

test-wheel: $(VENV)/.installed ## sdist and wheel, tried in an empty environment of each Python that is here, or of PYTHON
	@$(QUIET) bash tests/wheel.sh $(VENV_WHEEL) $(or $(PYTHON),$(addprefix python,$(PYTHONS)))

docs: $(VENV_DOCS)/.installed ## the site, into site/; a broken link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 $(QUIET) $(VENV_DOCS)/bin/python -m mkdocs build --quiet --strict $(ARGS)
	@echo "see it, with its search: python -m http.server --directory site"

docs-deploy: $(VENV_DOCS)/.installed ## the site, to the branch gh-pages of origin
	@NO_MKDOCS_2_WARNING=1 $(QUIET) $(VENV_DOCS)/bin/python -m mkdocs gh-deploy --strict $(ARGS)

lint: $(VENV)/.installed ## style, format and types, checked only
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPED)

clean: ## remove environments and build products; runs/ stays
	rm -rf $(VENV) $(VENV_IO) $(VENV_BEAM) $(VENV_WEIGHTS) $(VENV_RUNTIMES) $(VENV_MTEB) $(VENV_NEWEST) $(VENV_MATRIX) $(VENV_DOCS) $(VENV_WHEEL) build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV),dev,$(PYTHONS))

$(VENV_IO)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_IO),io$(COMMA)dev,$(PYTHONS_IO))

$(VENV_BEAM)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_BEAM),beam$(COMMA)dev,$(PYTHONS))

$(VENV_WEIGHTS)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_WEIGHTS),weights$(COMMA)dev,$(PYTHONS))

$(VENV_RUNTIMES)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_RUNTIMES),runtimes$(COMMA)dev,$(PYTHONS))

$(VENV_MTEB)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_MTEB),mteb$(COMMA)dev,$(PYTHONS))

$(VENV_NEWEST)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_NEWEST),dev,$(PYTHONS))

$(VENV_DOCS)/.installed: setup.cfg pyproject.toml
	$(call make_venv,$(VENV_DOCS),docs,$(PYTHONS))
