# The two commands of README.md are `make compare` and `make test`; they install what is missing.
SHELL := /bin/bash
CARGO ?= cargo
TARGET := x86_64-unknown-linux-gnu
BIN := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/isolab
APT := DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o Dpkg::Use-Pty=0
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Programs outside of the workspace: those that images/build.rs builds, and the guest kernel of tests/hostile_guest.rs.
PROGRAMS := images/bare images/init images/probe images/pull images/work vmm/tests/hostile-kernel
# What the tests use as real parts and as independent judges.
TEST_PACKAGES := cpio erofs-utils skopeo umoci docker-registry mmdebstrap busybox-static bubblewrap runc hyperfine util-linux uidmap g++

.PHONY: build compare test fuzz fuzz-minimise fuzz-seeds fuzz-packages sbom baseline start-order bench bench-start bench-lab-start bench-concurrent bench-guest bench-import check doctor clean linker test-packages kernel docs-paths

build: linker
	$(CARGO) build --release --locked

# The main job: set up, build, compare, table on the terminal, record and HTML report in out/.
compare: build kernel
	@mkdir -p out
	$(BIN) compare --json out/compare.json --html out/compare.html demo
	@echo "report: out/compare.html   record: out/compare.json"

test: build test-packages kernel
	ISOLAB_BIN=$(abspath $(BIN)) bash tests/run

# Longer than the tests do: FUZZ_SECONDS=600 for each target, FUZZ_JOBS=1 at a time, FUZZ_TARGETS="tar oci" for some (docs/fuzzing.md).
fuzz: linker fuzz-packages
	fuzz/run

# What `make fuzz` found becomes the corpus in the repository, as small as it can be; and the seeds anew, from what they are made of.
fuzz-minimise: linker fuzz-packages
	fuzz/run --minimise

fuzz-seeds: linker
	ISOLAB_SEEDS=write $(CARGO) test --locked -p isolab-images -p isolab-vmm --lib seeds_are_those_of_the_repository

fuzz-packages:
	@command -v g++ >/dev/null || { $(SUDO) $(APT) update && $(SUDO) $(APT) install --no-install-recommends g++; }

# What isolab and each program that it carries is made of, as CycloneDX (docs/security.md, L-08). The same source gives the same files: their
# time is the commit's.
SBOM := out/sbom
SBOM_TOOLS := $(or $(CARGO_TARGET_DIR),target)/tools
sbom: linker
	@command -v jq >/dev/null || { $(SUDO) $(APT) update && $(SUDO) $(APT) install --no-install-recommends jq; }
	@[ -x $(SBOM_TOOLS)/bin/cargo-cyclonedx ] || $(CARGO) install --locked --root $(SBOM_TOOLS) cargo-cyclonedx@0.5.9
	CARGO=$(CARGO) TOOL=$(SBOM_TOOLS)/bin/cargo-cyclonedx TARGET=$(TARGET) .ci/sbom $(SBOM)

# The figures that tests/gate.rs knows, anew: of this build in this machine's lab. The commit says why they rose.
baseline: build kernel
	ISOLAB_BIN=$(abspath $(BIN)) $(CARGO) test --locked --workspace --test gate -- --ignored --exact the_baseline_is_written_anew

# The functions that a start executes, anew, for the linker (build.rs).
start-order: build kernel
	$(CARGO) run --locked --example start_order $(BIN) > $(BIN).order
	mv $(BIN).order start.order

# The figures of docs/performance.md, as Markdown; each part by its own name, too.
bench: build
	ISOLAB_BIN=$(abspath $(BIN)) bench/figures

bench-start bench-lab-start bench-concurrent bench-guest bench-import: build
	ISOLAB_BIN=$(abspath $(BIN)) bench/figures $(@:bench-%=%)

# What a change must pass before it lands.
check: linker docs-paths
	$(CARGO) fmt --all --check
	set -e; for p in $(PROGRAMS) fuzz; do $(CARGO) fmt --check --manifest-path $$p/Cargo.toml; done
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	set -e; for p in $(PROGRAMS); do $(CARGO) clippy --locked --manifest-path $$p/Cargo.toml --target-dir target/programs -- -D warnings; done
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --document-private-items
	set -e; for p in $(PROGRAMS); do RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items --manifest-path $$p/Cargo.toml --target-dir target/programs; done
	$(MAKE) test

doctor: build
	$(BIN) doctor

# QEMU and the guest kernel, through the tool's own remedy.
kernel: build
	$(BIN) doctor --fix --yes

linker:
	@command -v cc >/dev/null && command -v ar >/dev/null || { $(SUDO) $(APT) update && $(SUDO) $(APT) install --no-install-recommends gcc libc6-dev binutils; }

test-packages:
	@missing=""; for p in $(TEST_PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) $(APT) update && $(SUDO) $(APT) install --no-install-recommends $$missing; fi

# Every path that the documents name exists.
docs-paths:
	@fail=0; for f in README.md docs/*.md; do \
	  for p in $$(grep -oE '`(src|vmm|container|bench|images|examples|tests|docs)/[A-Za-z0-9_./-]+`' $$f | tr -d '`'); do \
	    [ -e "$$p" ] || { echo "$$f names $$p, which does not exist"; fail=1; }; done; done; exit $$fail

clean:
	$(CARGO) clean
	rm -rf out
