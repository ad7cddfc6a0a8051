# What `titan demo edge-rollback` does once the fleet is healthy.
- title: version 2 does not work; both gateways find out and return to version 1
  command: titan edit workload gateway
  patch: { kind: Workload, workspace: default, name: gateway, with: { spec: { version: 2.0.0, values: { state: broken } } } }
  rollsBack: { kind: Deployment, workspace: default, name: gateway }
- title: version 2.0.1 works
  command: titan edit workload gateway
  patch: { kind: Workload, workspace: default, name: gateway, with: { spec: { version: 2.0.1, values: { state: ok } } } }
- title: the gateways are no longer needed
  command: titan delete deployment gateway
  delete: { kind: Deployment, workspace: default, name: gateway }
