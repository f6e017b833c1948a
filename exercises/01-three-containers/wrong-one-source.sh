#!/usr/bin/env bash
# Only pod-a is kept out; pod-b still reads the metrics.
#@ after solution
#@ red closed-v4 closed-v6 still-local
#@ on node-of:multi-container-pod
pid=$(pgrep -o node_exporter)
nsenter -t "$pid" -n nft flush chain inet guard input
nsenter -t "$pid" -n nft add rule inet guard input ip saddr 10.244.1.10 tcp dport '{ 9100, 24224 }' reject
