#!/usr/bin/env bash
# Analysis 1: the manifest as it stands, then the inode number as a label.
#@ apply pod.yaml
#@ wait one-netns
#@ on node:node1
inode=$(kubectl exec multi-container-pod -c web-server -- readlink /proc/self/ns/net | tr -dc 0-9)
kubectl label pod multi-container-pod --overwrite "netns=$inode"

# Analysis 2: a record in fluentd's forward protocol, and a listener that
# another container reaches.
#@ on multi-container-pod/web-server
printf '\x93\xa9web.hello\x00\x81\xa7message\xb5hello from web-server' | nc -N 127.0.0.1 24224
#@ on multi-container-pod/log-collector
background socat TCP-LISTEN:8088,fork,reuseaddr SYSTEM:'echo I live in log-collector'

# Analysis 3: the conflict, and the same pod with another port.
#@ apply port-conflict.yaml
#@ apply solution-port-fixed.yaml

# Analysis 4: one listener for the pod alone, one for all.
#@ on multi-container-pod/web-server
background socat TCP-LISTEN:7070,bind=127.0.0.1,fork,reuseaddr SYSTEM:'echo only for neighbours'
background socat TCP-LISTEN:7071,fork,reuseaddr SYSTEM:'echo for everyone'

# Analysis 5: rules in the pod's own network namespace, set from its node.
#@ on node-of:multi-container-pod
nsenter -t "$(pgrep -o node_exporter)" -n nft -f - <<'EOF'
table inet guard {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != "lo" tcp dport { 9100, 24224 } counter reject with tcp reset
  }
}
EOF
