# What a developer and CI do here. `make` alone prints the targets.

GO      ?= go
POSTGRES ?= 14.18.0 18.1.0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -X github.com/tributary-dev/tributary/internal/app.Version=$(VERSION)
TOOL     = $(GO) tool -modfile=tools/go.mod

# The scenarios over the built programs have targets of their own.
UNITS = $$($(GO) list ./... | grep -v -E '/test/(e2e|chaos|bench|metrics|compose)$$')

# How tests are run: flags, packages. With RERUN, a directory, a test that fails is run once more, alone, as long as few fail,
# and a file in there says how often it failed: CI passes by it, and tells of it.
ifdef RERUN
gotest = $(TOOL) gotestsum --format=pkgname-and-test-fails --hide-summary=skipped --rerun-fails=1 --rerun-fails-max-failures=3 \
	--rerun-fails-run-root-test --rerun-fails-report="$$(mktemp $(RERUN)/$@.XXXXXX)" --packages="$(2)" -- $(1) $(FLAGS)
else
gotest = $(GO) test $(1) $(FLAGS) $(2)
endif

.DEFAULT_GOAL := help
.PHONY: help build test versions race e2e chaos bench elasticsearch lint fmt generate fresh verify demo dev clean

help: ## this text
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 22

build: ## the programs, into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

test: ## all tests but the scenarios
	$(call gotest,-timeout 10m,$(UNITS))

race: ## the same under the race detector
	$(call gotest,-race -timeout 20m,$(UNITS))

e2e: ## scenarios over the built programs
	$(call gotest,-count=1 -timeout 30m -p 1,./test/e2e/... ./test/metrics ./test/compose)

chaos: ## random kills; CHAOS_KILLS=n how many, CHAOS_SEED=n to repeat a run
	$(GO) test -count=1 -timeout 60m -v ./test/chaos/...

bench: ## rates and latencies, printed
	$(GO) test -v -tags bench -bench . -benchtime 1s -count=1 -timeout 60m ./test/bench | grep -v '^ *\(===\|---\|PASS$$\)'

elasticsearch: ## a real Elasticsearch on 127.0.0.1:9200 for tests and services; test/elasticsearch/stop ends it
	@url=$$(test/elasticsearch/start --port 9200) && printf '%s\n  tests:     ELASTICSEARCH_URL=%s make test\n  services:  TRIBUTARY_INDEXER_ELASTICSEARCH=%s\n  stop:      test/elasticsearch/stop --port 9200\n' $$url $$url $$url

lint: ## gofmt, go vet, staticcheck
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "not formatted (make fmt does it):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

fmt: ## format the code
	gofmt -w .

generate: ## write generated files again
	$(GO) generate ./...

fresh: ## fail if generated files are not as the sources have them
	@before="$$(git diff | git hash-object --stdin)"; $(MAKE) -s generate; \
	after="$$(git diff | git hash-object --stdin)"; \
	if [ "$$before" != "$$after" ]; then echo "generated files were stale; commit what make generate wrote"; exit 1; fi

versions: ## reading PostgreSQL, on other versions of it, which are fetched; POSTGRES="14.18.0 18.1.0" says which
	@for v in $(POSTGRES); do echo "PostgreSQL $$v"; export PGBIN=fetch:$$v; $(call gotest,-count=1 -timeout 20m,./pkg/pgcdc ./test/conformance) || exit 1; done

verify: lint fresh test ## what a commit must pass

demo: ## a small shop: rows become webhooks, retries, a dead letter, search hits; Ctrl-C ends it
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/tributary
	@bin/tributary dev --demo

dev: ## everything in one process
	$(GO) run -ldflags '$(LDFLAGS)' ./cmd/tributary dev

clean: ## remove what was built
	rm -rf bin
