#!/usr/bin/env bash
# The listener runs in the container that asks: nothing was shown about sharing.
#@ red borrowed-port bind-loopback bind-wildcard
#@ apply pod.yaml
#@ wait one-netns
#@ on multi-container-pod/web-server
background socat TCP-LISTEN:8088,fork,reuseaddr SYSTEM:'echo wrong house'
background socat TCP-LISTEN:7070,fork,reuseaddr SYSTEM:'echo open to all'
background socat TCP-LISTEN:7071,bind=127.0.0.1,fork,reuseaddr SYSTEM:'echo open to none'
