# Placeholder of the first commit; `make up` and `make test` grow here.
build:
	go build -o bin/podlab ./server
.PHONY: build
