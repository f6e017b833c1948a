# The container image: `make image`, or `docker build -t podlab .`
# The base images can be replaced (--build-arg GO=…), for a mirror or a site's own.
ARG DEBIAN=debian:12-slim
ARG GO=golang:1.26-bookworm
ARG NODE=node:22-bookworm-slim

FROM ${NODE} AS node

# The server's binary, and kubectl for the labs.
FROM ${GO} AS build
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -sf ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY scripts scripts
RUN mkdir -p server && scripts/kubectl bin/kubectl
COPY . .
ARG VERSION=unknown
RUN PODLAB_VERSION=${VERSION} make build

# The lab's root file system: the packages of scripts/rootfs.packages on a
# plain Debian, in place of mmdebstrap, which would need privileges here.
FROM ${DEBIAN} AS packages
COPY scripts/rootfs.packages /tmp/
RUN printf 'path-exclude=/usr/share/%s/*\n' man info locale doc >/etc/dpkg/dpkg.cfg.d/podlab \
 && echo 'path-include=/usr/share/doc/*/copyright' >>/etc/dpkg/dpkg.cfg.d/podlab \
 && apt-get update -q \
 && grep -Ev '^(#|$)' /tmp/rootfs.packages | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y -q --no-install-recommends usr-is-merged \
 && rm -rf /tmp/rootfs.packages /etc/dpkg/dpkg.cfg.d/podlab /var/lib/apt/lists/*

FROM ${DEBIAN} AS rootfs
COPY --from=packages / /tree
COPY --from=build /src/bin/kubectl /tree/usr/local/bin/kubectl
COPY scripts/rootfs-finish /scripts/
COPY scripts/rootfs.d /scripts/rootfs.d
RUN /scripts/rootfs-finish /tree

# The layers of the labs' container images.
FROM build AS images
COPY --from=rootfs /tree /data/rootfs/current
RUN PODLAB_DATA=/data scripts/images

# What runs: the server, an OCI runtime, and the root file system.
FROM ${DEBIAN}
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends crun runc \
 && rm -rf /var/lib/apt/lists/*
COPY --from=rootfs /tree /usr/share/podlab/rootfs
COPY --from=images /data/images /usr/share/podlab/images
COPY --from=build /src/bin/podlab /usr/local/bin/podlab
COPY scripts/container-entry /usr/local/bin/
COPY scripts/ready /usr/local/bin/podlab-ready
# Names what the volume must hold; any change of it gives another key.
RUN cd /usr/share/podlab && find . -printf '%p %s %l %m\n' | sort | sha256sum | cut -c1-16 >/tmp/key && mv /tmp/key .
VOLUME /var/lib/podlab
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["podlab-ready"]
ENTRYPOINT ["container-entry"]
CMD ["serve", "--addr", "0.0.0.0:8080", "--data", "/var/lib/podlab"]
