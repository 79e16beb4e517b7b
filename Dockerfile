# One image for all programs; the command says which: ingest, worker, jobrunner, indexer or tributary.
#
#   docker build -t tributary --build-arg VERSION=$(git describe --tags --always) .

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w -X github.com/tributary-dev/tributary/internal/app.Version=$VERSION" -o /out/ ./cmd/...
# An empty folder to copy, since the last stage has no shell to make one.
RUN mkdir -p /out/state

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/ingest /out/worker /out/jobrunner /out/indexer /out/tributary /usr/local/bin/
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/tributary
ENV TRIBUTARY_STATE_DIR=/var/lib/tributary TRIBUTARY_CONFIG=/etc/tributary/tributary.yaml
USER nonroot:nonroot
WORKDIR /var/lib/tributary
EXPOSE 9100
CMD ["tributary", "--help"]
