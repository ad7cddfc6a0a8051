# What `titan demo kubernetes-guestbook` does once the fleet is healthy.
- title: a new release of the front end
  command: titan edit workload frontend -w guestbook
  patch: { kind: Workload, workspace: guestbook, name: frontend, with: { spec: { version: "6" } } }
- title: the cluster in the east moves to Europe; its override no longer matches
  command: titan edit host us-east
  patch: { kind: Host, name: us-east, with: { metadata: { labels: { region: eu } } } }
- title: the front end is deleted; redis stays
  command: titan delete deployment frontend -w guestbook
  delete: { kind: Deployment, workspace: guestbook, name: frontend }
