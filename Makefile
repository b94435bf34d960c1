# Installs clever into .venv and runs it there: `make help`.

STAMP := .venv/ready

# The stamp holds the checkout and the interpreter that .venv was made for; without PYTHON=... that interpreter stays.
ifndef PYTHON
PYTHON := $(or $(shell sed -n 2p $(STAMP) 2>/dev/null),python3)
endif
mark := printf '%s\n' '$(CURDIR)' '$(PYTHON)'
usable := { $(mark) | cmp -s - $(STAMP) && .venv/bin/python -c ''; } 2>/dev/null

.PHONY: help demo test mutants clean new-venv FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make demo      table 3 of the paper on small real images, on this machine: some minutes'
	@echo 'make test      everything that can be tested on this machine'
	@echo 'make mutants   breaks the code on purpose and sees whether the tests notice'
	@echo 'make clean     removes .venv and what was built; results in runs/ stay'
	@echo 'PYTHON=/path/to/python3.12 chooses the interpreter (3.11 or newer; default: python3)'

demo: $(STAMP)
	.venv/bin/clever run table3 --executor local

test: $(STAMP)
	.venv/bin/python -m pytest

mutants: $(STAMP)
	.venv/bin/python tests/mutants.py

# Without a usable stamp (first time, interrupted, moved, other interpreter) the environment is made anew.
$(STAMP): pyproject.toml constraints.txt $(shell $(usable) || echo FORCE)
	@$(usable) || $(MAKE) --no-print-directory PYTHON='$(PYTHON)' new-venv
	@rm -f $@
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]' --constraint constraints.txt
	@$(mark) > $@

new-venv:
	@command -v $(PYTHON) >/dev/null || { \
	  echo '`$(PYTHON)` was not found. On Debian and Ubuntu: sudo apt install python3 python3-venv' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "clever needs Python 3.11 or newer; \`$(PYTHON)\` is $$($(PYTHON) -V 2>&1)." \
	       "Choose another one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  echo "\`$(PYTHON)\` cannot make virtual environments. On Debian and Ubuntu: sudo apt install $$package" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	@echo 'Installing PyTorch and the rest into .venv: some gigabytes, once.'

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find clever experiments reports tests -name __pycache__ -type d -prune -exec rm -rf {} +
