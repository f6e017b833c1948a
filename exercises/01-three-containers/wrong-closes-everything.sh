#!/usr/bin/env bash
# Closed to the world, and to the web server's own clients and neighbours too.
#@ after solution
#@ red closed-v4 closed-v6 still-local
#@ on node-of:multi-container-pod
nsenter -t "$(pgrep -o node_exporter)" -n nft add rule inet guard input tcp dport '{ 80, 9100, 24224 }' drop
