#!/usr/bin/env bash
#@ on node:node1
kubectl delete pod multi-container-pod port-conflict port-fixed --grace-period=1
