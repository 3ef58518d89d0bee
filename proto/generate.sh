#!/usr/bin/env bash
# Generates the Go code from the .proto files. Needs protoc (Debian: protobuf-compiler) and Go; installs the plugins at
# the versions pinned here into a folder of its own.
set -euo pipefail
cd "$(dirname "$0")"
bin=${XDG_CACHE_HOME:-$HOME/.cache}/watershed-protoc
mkdir -p "$bin"
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
find . -name '*.pb.go' -delete
PATH=$bin:$PATH protoc -I . --go_out=. --go_opt=paths=source_relative \
  --go-grpc_out=. --go-grpc_opt=paths=source_relative $(find watershed -name '*.proto' | LC_ALL=C sort)
