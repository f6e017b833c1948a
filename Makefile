# podlab. `make up` runs it, `make test` tests it; both install what they
# need (Debian 12, as root, with Go, Node.js and git) and are quick when there
# is nothing to do. What is longer than a line stands in scripts/.

SHELL       := /bin/bash
MAKEFLAGS   += --no-print-directory
export PODLAB_DATA ?= /var/lib/podlab
export PODLAB_ADDR ?= 127.0.0.1:8080

.PHONY: help up down logs build generate rootfs images test unit lint bench image clean

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

up: ## install, build, start the server, print its address
	@scripts/up

down: ## stop the server; its labs run on
	@scripts/down

logs: ## follow the server's log
	@tail -n 50 -F "$$PODLAB_DATA/server.log"

build: generate ## bin/podlab, one static binary
	@scripts/build

generate: ## pages, browser client and embedded programs
	@scripts/deps build
	@scripts/generate

rootfs: ## the lab's root file system, in PODLAB_DATA
	@scripts/deps rootfs
	@scripts/rootfs >/dev/null

images: build rootfs ## the image layers of the lab's containers, in PODLAB_DATA
	@scripts/images

test: ## every test; needs root
	@scripts/test

unit: generate ## only the tests that need neither root nor a browser
	@go test -skip '^TestPrivileged' ./...

lint: generate ## gofmt, go vet, golangci-lint, shellcheck
	@scripts/lint all

bench: images ## the table of speeds and sizes beside their limits
	@bin/podlab bench

image: ## the container image podlab:latest, by docker or podman
	@scripts/image

clean: ## remove what was built here (not PODLAB_DATA)
	@rm -rf bin dist .cache lab/runtime/spawn/bin lab/kube/openapi/bin/*.gz web/static/app web/client/src/gen web/client/node_modules
	@find . -name '*_templ.go' -not -path './web/client/*' -delete
