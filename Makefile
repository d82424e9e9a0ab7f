# On a fresh Debian machine with a Swift toolchain, each of these does all its own set-up.
#   make demo        builds and answers questions about images at several budgets, and a text question with SmolLM2
#   make test        every test that belongs to a change (minutes)
#   make check       the checks of `make test` that need no build (a minute)
#   make check-slow  comparisons with llama.cpp on SmolLM2, memory and cost limits on larger models, sanitizers
#   make torch       installs libtorch and builds build/adatorch/libAdaTorch.so, which `adallava train` opens
#   make test-gateway  two servers behind Shepherd Model Gateway (PyPI): answers, budgets, workers that die
#   make bench       speed against the machine's limits and the peers: one table, and build/bench/results.json (SECTIONS="smollm2 busy")
#   make bench-deadline  whether time budgets are kept while other programs come and go (half an hour on an otherwise idle machine)
#   make bench-serve the server beside llama-server with a bounded client (a quarter of an hour; BENCH_SERVE="--seconds 2 --rounds 1" for a look)
#   make bench-slo   requests answered by their deadlines at several loads and policies (two hours; BENCH_SLO="--duration 20" for a look)
#   make bench-train  training speed of the default model's shape, beside PyTorch where it is installed
#   make train-scenes the embedded default model, from its data to its card (hours; stop and start as you like)
#   make examples    builds Examples/, a package that depends on this one (`make test` compiles and runs its programs without a second build)
#   make build       the release executable, .build/release/adallava
#   make install PREFIX=$HOME/.local   command, models, shell completions and man pages

SWIFT ?= swift
SWIFTFLAGS ?=
PREFIX ?= /usr/local

# What training needs beside: Debian's libtorch, and the library that opens it.
TORCH_PACKAGES = libtorch-dev libgloo-dev libopenblas0-pthread
# For the tests of the documents and of the server's clients, and for counting instructions.
TEST_PACKAGES = curl python3-venv valgrind

.PHONY: setup torch build install examples demo check test test-gateway check-slow bench bench-deadline bench-serve bench-slo bench-train train-scenes clean

setup:
	@scripts/setup.sh

torch:
	@scripts/setup.sh $(TORCH_PACKAGES)
	@scripts/build-adatorch.sh

build: setup
	$(SWIFT) build -c release --product adallava $(SWIFTFLAGS)

install: build
	@SWIFT="$(SWIFT)" scripts/install.sh "$(PREFIX)"

examples: setup
	$(SWIFT) build --package-path Examples $(SWIFTFLAGS)

demo: build
	@scripts/demo.sh

check: setup
	@scripts/check-arrows.py
	@scripts/check-format.py
	@scripts/kernel-table.py --check
	@Tests/Tools/test_check_format.py --quiet
	@Tests/Tools/test_check_gates.py --quiet
	@Tests/Tools/test_kernel_table.py --quiet
	@Tests/Tools/test_check_docs.py --quiet

test: check torch
	@scripts/setup.sh $(TEST_PACKAGES)
	$(SWIFT) build -c release --build-tests -Xswiftc -enable-testing $(SWIFTFLAGS)
	@scripts/check-interface.py
	@scripts/check-examples.sh
	@scripts/build-documentation.sh
	@scripts/check-instructions.py
	$(SWIFT) test -c release -Xswiftc -enable-testing --skip-build $(SWIFTFLAGS)
	@Tests/Tools/test_page.py
	@scripts/test-clients.sh
	@scripts/check-docs.py

test-gateway: build
	@scripts/test-gateway.sh

check-slow: build
	@scripts/check-slow.sh

bench: setup
	@SWIFTFLAGS="$(SWIFTFLAGS)" scripts/bench.sh $(SECTIONS)

bench-deadline: build
	.build/release/adallava bench deadline --requests 300 --oracle 3 --output build/bench

bench-serve: build
	@scripts/bench-serve.sh $(BENCH_SERVE)

bench-slo: build
	.build/release/adallava bench slo --output build/bench $(BENCH_SLO)

bench-train: build torch
	@scripts/bench-train.sh

train-scenes: build torch
	@scripts/train-scenes.sh

clean:
	rm -rf .build build
