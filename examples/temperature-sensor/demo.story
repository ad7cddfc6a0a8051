# What `titan demo temperature-sensor` does once the fleet is healthy.
- title: the service moves to another port
  command: titan edit deployment prod
  patch: { kind: Deployment, workspace: default, name: prod, with: { spec: { values: { port: 9090 } } } }
- title: tim-pi is given another name label; the target no longer matches and the service leaves
  command: titan edit host tim-pi
  patch: { kind: Host, name: tim-pi, with: { metadata: { labels: { name: spare } } } }
- title: tim-pi gets its label back, and the service with it
  command: titan edit host tim-pi
  patch: { kind: Host, name: tim-pi, with: { metadata: { labels: { name: tim-pi } } } }
- title: the deployment is deleted
  command: titan delete deployment prod
  delete: { kind: Deployment, workspace: default, name: prod }
