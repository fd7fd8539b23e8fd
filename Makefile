# Two commands do everything on a fresh machine with Python 3.11 or later:
#   make demo   paint the bundled pictures, draw what the units look for in them
#   make test   lint, types, tests and docs

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# On Linux the usual index has torch for NVIDIA's GPUs, 5 GB. `make CPU=1 demo` takes the build without, 200 MB, from PyTorch's own.
TORCH := torch$(if $(CPU), --index-url https://download.pytorch.org/whl/cpu)

.PHONY: demo test browser sbom clean

demo: $(VENV)/installed
	$(BIN)/impasto demo impasto-demo

test: $(VENV)/installed-dev browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# For the pages. Debian's, where we may install it; without one the tests that need it are skipped and say so.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { echo "installing Chromium, which the pages are tried in"; \
	     apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "Chromium is missing and could not be installed: the pages will not be tried in a browser"

# What is installed, with licences, as CycloneDX: for who has to account for it.
sbom: $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	$(VENV)-sbom/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

clean:
	rm -rf $(VENV) $(VENV)-sbom impasto-demo sbom.json

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip
	$(PIP) $(TORCH)
	$(PIP) --editable '.[studio]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev,hires,ray,studio,video]'
	touch $@
