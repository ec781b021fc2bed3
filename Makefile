# Pagemill: the commands a person types. CMake (CMakePresets.json) does the building.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODEL ?= demo
PORT ?= 8000
JOBS ?= $(shell nproc)
PAGEMILL := build/release/src/cli/pagemill
RUST := source scripts/rust_env.sh

.PHONY: help
help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: serve
serve: pagemill ## install what is missing, build, fetch the demo model, serve it (MODEL=, PORT=)
	@if [ '$(MODEL)' = demo ]; then python3 scripts/fetch_demo.py >/dev/null; fi
	@echo
	@echo 'Once it listens, try in another terminal:'
	@echo
	@echo "  curl http://127.0.0.1:$(PORT)/v1/chat/completions -H 'Content-Type: application/json' \\"
	@echo "    -d '{\"model\": \"$(MODEL)\", \"messages\": [{\"role\": \"user\", \"content\": \"Name three colours.\"}], \"max_tokens\": 64}'"
	@echo
	@exec $(PAGEMILL) serve '$(MODEL)' --port '$(PORT)'

.PHONY: test
test: ## build and run every test, within an hour on two cores
	@command -v python3 >/dev/null || scripts/install_deps.sh test
	@python3 scripts/run_tests.py

.PHONY: test-long
test-long: ## every test, then the ones that take longer (more fuzzing, more random cases)
	@command -v python3 >/dev/null || scripts/install_deps.sh test
	@python3 scripts/run_tests.py --long

.PHONY: pagemill
pagemill: deps
	@$(RUST) && cmake --preset release --log-level=NOTICE && ninja -C build/release -j$(JOBS) pagemill

.PHONY: build
build: deps ## the release build, with its tests, in build/release
	@$(RUST) && cmake --preset release --log-level=NOTICE && ninja -C build/release -j$(JOBS)

.PHONY: deps
deps:
	@scripts/install_deps.sh build

.PHONY: bench
bench: pagemill ## measure throughput, latency and start-up on the demo model
	@python3 scripts/fetch_demo.py >/dev/null
	@bench/run.sh

.PHONY: format
format: ## clang-format (the pinned version) on every C++ file
	@scripts/venv.sh && python3 scripts/lint.py --fix-format

.PHONY: lint
lint: ## the tree's own rules: includes, format, names, symbols
	@scripts/venv.sh && python3 scripts/lint.py

.PHONY: tidy
tidy: build ## clang-tidy (the pinned version) on every source
	@scripts/venv.sh && python3 scripts/tidy.py

.PHONY: clean
clean: ## remove the build folder (the demo model stays in its cache)
	@rm -rf build
