#!/usr/bin/env bash
# The number was read on the node: that is the node's namespace.
#@ after solution
#@ red netns-label
#@ on node:node1
kubectl label pod multi-container-pod --overwrite "netns=$(readlink /proc/self/ns/net | tr -dc 0-9)"
