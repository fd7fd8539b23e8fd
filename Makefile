# Everything on a fresh machine with Python 3.11 or later:
#   make demo           paint the bundled pictures, draw what the units respond to in them
#   make test           lint, types, tests and docs
#   make test-browser   the pages in headless Chromium, which it installs where it may
#   make check          lint, types and the quick tests, for while you work
#   make dist           the wheel and the source archive for a package index

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# On Linux the usual index has torch for NVIDIA's GPUs, 5 GB. `make CPU=1 demo` takes the build without, 200 MB, from PyTorch's own.
TORCH := torch$(if $(CPU), --index-url https://download.pytorch.org/whl/cpu)

# One process more than there are processors, at most four: tests that wait for servers and workers leave them idle.
PROCESSES := $(shell $(PYTHON) -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))")
# Compiled tests are kept even where PYTHONDONTWRITEBYTECODE is set: else every process compiles all of them, 8 seconds each.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES)

.PHONY: demo test test-browser check lint chromium dist sbom clean

demo: $(VENV)/installed
	$(BIN)/impasto demo impasto-demo

test: lint
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not browser"

test-browser: $(VENV)/installed-dev chromium
	$(PYTEST) --dist loadfile -m browser

check: lint
	$(PYTEST) --dist worksteal -m "not browser and not weights and not slow"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Debian's, with apt and the right to install; without one the tests of the pages are skipped and say so.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { echo "installing Chromium, which the pages are tested in"; \
	     apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "Chromium is missing and could not be installed: the tests of the pages are skipped"

# A package index shows README.md without the files beside it: its links get the address that the project's files have on the web, as
# make dist ADDRESS=https://github.com/OWNER/NAME/blob/main
DIST ?= dist
dist: $(VENV)/installed
	@test -n "$(ADDRESS)" || { echo "make dist needs ADDRESS=, where the project's files are on the web"; exit 2; }
	$(PIP) hatchling==1.33.0
	rm -rf $(DIST)
	$(BIN)/python -m hatchling build --target sdist --directory $(DIST)
	mkdir $(DIST)/source && tar -xf $(DIST)/*.tar.gz -C $(DIST)/source --strip-components 1
	sed -E -i.old -e 's#\]\(([A-Za-z][^):]*)\)#]($(ADDRESS)/\1)#g' -e 's#src="([^":]*)"#src="$(subst /blob/,/raw/,$(ADDRESS))/\1"#g' \
		$(DIST)/source/README.md && rm $(DIST)/source/README.md.old
	cd $(DIST)/source && $(abspath $(BIN))/python -m hatchling build --directory $(abspath $(DIST))
	rm -r $(DIST)/source

# What is installed, with licences, as CycloneDX: for who has to account for it.
sbom: $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	$(VENV)-sbom/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

clean:
	rm -rf $(VENV) $(VENV)-sbom impasto-demo dist sbom.json

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip
	$(PIP) $(TORCH)
	$(PIP) --editable '.[studio,heic]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev,heic,hires,ray,studio,video]'
	touch $@
