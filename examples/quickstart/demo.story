# What `titan demo` does once the fleet is healthy.
- title: the workload's version is bumped; both thermometers change, the cluster does not
  command: titan edit workload thermometer -w iot
  patch: { kind: Workload, workspace: iot, name: thermometer, with: { spec: { version: 1.5.0 } } }
- title: garden-pi moves indoors; its override no longer matches, and its banner says so
  command: titan edit host garden-pi
  patch: { kind: Host, name: garden-pi, with: { metadata: { labels: { place: indoors } } } }
- title: kitchen-pi gives up its sensor; the thermometer is removed there, and only there
  command: titan edit host kitchen-pi
  patch: { kind: Host, name: kitchen-pi, with: { metadata: { labels: { sensor: null } } } }
- title: the dashboard is deleted
  command: titan delete deployment dashboard -w iot
  delete: { kind: Deployment, workspace: iot, name: dashboard }
