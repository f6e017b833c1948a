#!/usr/bin/env bash
# A table of family ip filters IPv4 and leaves IPv6 open.
#@ after solution
#@ red closed-v6
#@ on node-of:multi-container-pod
pid=$(pgrep -o node_exporter)
nsenter -t "$pid" -n nft delete table inet guard
nsenter -t "$pid" -n nft -f - <<'EOF'
table ip guard {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != "lo" tcp dport { 9100, 24224 } drop
  }
}
EOF
