# `make run` and `make test` need nothing but Python 3.11, 3.12 or 3.13 and a package registry.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	$$each -c '$(FITS)' 2>/dev/null && echo $$each && break; done)
# `make GPU=1 ...` adds the CUDA libraries that this TensorFlow was built for (several GB).
EXTRA = $(if $(GPU),"tensorflow[and-cuda]")
PY = .venv/bin/python
READY = .venv/ready
# TensorFlow keeps memory between steps on a CPU; benchmarks/rivals.py measures what that brings.
export TF_CPU_ALLOCATOR_USE_BFC = 1
NOTEBOOKS = run.ipynb $(wildcard notebooks/*.ipynb)

QUICK = project config losses metrics layers networks randomness latent splits factors phantoms plots \
	conditions

# `make explore RUN=runs/mine DATA=validation` opens another run.
RUN = readme_assets/digits_run
DATA = all

.PHONY: run notebook explore check test test-long test-browser units pages lint format notebooks robust bench lock clean

run: $(READY)  ## train a VAE on the embedded digits and look into it, headless
	@echo "Executing run.ipynb (about a minute on two cores) ..."
	@$(PY) notebooks/execute.py run.ipynb --into runs

notebook: $(READY)  ## open run.ipynb in Jupyter
	.venv/bin/jupyter notebook run.ipynb

explore: $(READY)  ## open a trained run as a page in the browser
	@$(PY) explore.py $(RUN) --data $(DATA)

check: $(READY) lint  ## lint and the quick tests: a minute
	@$(PY) -m pytest -q $(QUICK:%=tests/test_%.py)

test: $(READY) lint  ## lint, unit tests, and every notebook against its stored outputs
	@echo "Running unit tests and notebooks side by side (about 20 minutes on two cores) ..."
	@$(MAKE) --no-print-directory -j2 units pages

units: $(READY)  ## the unit tests alone
	@$(PY) -m pytest -q --durations=5 tests

pages: $(READY)  ## every notebook against its stored outputs
	@$(PY) -m pytest -q --nbval $(NOTEBOOKS)

test-long: $(READY)  ## more kills, workers, damaged files; sweeps; every notebook on all kinds of images: two hours
	ATLAS_LONG=1 $(PY) -m pytest -q --durations=5 \
		tests/test_checkpoints.py tests/test_distribution.py tests/test_sweep.py tests/test_archive.py \
		tests/test_files.py tests/test_decoding.py tests/test_fuzz.py tests/test_model.py tests/test_export.py \
		tests/test_notebooks.py

test-browser: $(READY)  ## that page in an installed Chromium (apt-get install chromium): three minutes
	@$(PY) -m pip install --quiet --disable-pip-version-check "playwright>=1.50,<2"
	@$(PY) -m pytest -q -s tests/test_browser.py

lint: $(READY)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

notebooks: $(READY)  ## execute every notebook anew on the embedded data and store its outputs
	ATLAS_EMBEDDED=1 $(PY) notebooks/execute.py $(NOTEBOOKS)

robust: $(READY)  ## do the stored outputs hold with other seeds and on one thread?
	ATLAS_SEED=1 $(PY) -m pytest -q --nbval $(NOTEBOOKS)
	ATLAS_SEED=2 TF_NUM_INTRAOP_THREADS=1 $(PY) -m pytest -q --nbval $(NOTEBOOKS)

bench: $(READY)  ## training beside other projects, scaling, encoding, reading: an hour, into RESULTS.md
	$(PY) benchmarks/results.py

lock: $(READY)  ## choose versions anew (asks for uv)
	uv pip compile --universal --extra medical --extra onnx --extra archive --extra explore --python-version 3.11 --no-header --no-annotate -q \
		pyproject.toml -o requirements.txt

$(READY): requirements.txt
	@$(PYTHON) -c '$(FITS)' 2>/dev/null \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed; name it: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Making the environment in .venv (1.5 GB; a minute or two) ..."
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt $(EXTRA)
	@touch $(READY)

clean:
	rm -rf .venv runs
