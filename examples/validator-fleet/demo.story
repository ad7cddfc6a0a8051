# What `titan demo validator-fleet` does once the fleet is healthy.
- title: a new version for all hundred hosts
  command: titan edit workload node -w testnet
  patch: { kind: Workload, workspace: testnet, name: node, with: { spec: { version: 0.38.1 } } }
- title: one validator becomes a sentry; it swaps one deployment for the other, nobody else moves
  command: titan edit host validator-007
  patch: { kind: Host, name: validator-007, with: { metadata: { labels: { role: sentry } } } }
- title: the sentries are deleted
  command: titan delete deployment sentries -w testnet
  delete: { kind: Deployment, workspace: testnet, name: sentries }
