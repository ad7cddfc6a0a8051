// How things are: a word and its tone.
const hostState = (host) => (host.enrolledAt ? (host.online ? ['online', 'ok'] : ['silent', 'bad']) : ['never enrolled', 'faint']);
const stated = ({ state }) => [SPOKEN[state] ?? state, TONES[state] ?? 'busy'];
const newest = () => new Map((data('plans')?.items ?? []).toReversed().map((plan) => [`${plan.workspace}/${plan.name.split('#')[0]}`, plan]));
function deploymentState(one, plan) {
  const status = data('statuses')?.[place(one)];
  if (!status) return plan ? stated(plan) : ['no rollout of late', 'faint'];
  const { desired, healthy, failed, offline, removing } = status.counts;
  if (status.problems) return ['not placed', 'bad'];
  if (failed) return ['failing', 'bad'];
  if (status.rollout) return stated(status.rollout);
  if (removing || status.planned < status.revision || healthy + offline < desired) return ['on the way', 'busy'];
  return offline ? ['hosts are silent', 'faint'] : ['settled', 'ok'];
}
const told = (row) => row.problem?.detail ?? row.message;
const rows = (statuses, wanted) => statuses.flatMap((of) => of.hosts.filter(wanted).map((row) => ({ ...row, of })));
// Deployments on hosts, those that are well last.
const hostTable = (all, ...first) => table([...first, 'State', 'Release', 'Since', 'Says'], all.toSorted((one, other) => (one.state === 'healthy') - (other.state === 'healthy')).map((row) => [
  ...first.map((column) => (column === 'Host' ? [link(row.host, 'hosts', row.host), row.more > 0 && ` and ${row.more} more`] : toDeployment(row.of))),
  word(...(row.state === 'failed' ? [{ degraded: 'degraded', rolledBack: 'rolled back' }[!row.problem && row.phase] ?? row.state, 'bad'] : stated(row))), row.release, ago(row.reportedAt), told(row)]));

function hostCounts(node) {
  const attempt = node.attempts?.at(-1);
  return [attempt?.details, ...(attempt?.progress ?? []).toReversed()].find((said) => said?.counts?.members)?.counts;
}
const parts = ({ members, proven, settling, moving, failed, offline, excluded }) => [
  [proven, 'ok', `of ${number(members)} proven`], [settling, 'near', 'settling'], [moving, 'busy', 'on the way'], [failed, 'bad', 'failed'],
  [offline - excluded, 'faint', 'offline'], [excluded, 'faint', 'left out'], [members - proven - settling - moving - failed - offline, '', 'not yet open'],
].filter(([count], at) => !at || count > 0);
// Nodes so that each comes after those that it waits for; what undoes something only once it was begun.
function ordered(nodes) {
  const left = new Map(nodes.map((node) => [node.name, node]));
  const edges = (group) => [...(group?.edges ?? []), ...(group?.groups ?? []).flatMap(edges)];
  const order = [];
  const visit = (node) => {
    if (!node || !left.delete(node.name)) return;
    edges(node.spec.after).forEach((edge) => visit(left.get(edge.split(':')[0])));
    order.push(node);
  };
  nodes.forEach(visit);
  return order.filter((node) => !node.spec.compensation || !(node.state === 'planned' || node.outcome === 'skipped'));
}
const gate = (node) => !node.outcome && (node.held || (node.spec.run?.approval && node.state === 'waiting'));
function said(node, counts) {
  const { approval, release } = node.spec.run ?? {};
  if (node.held) return `waits for a person: ${node.message ?? ''}`;
  if (gate(node)) return [`waits for approval by ${approval.minimum}`, node.dueAt && [', ', ago(node.dueAt, ' left', -1)]];
  if (counts && (node.outcome ?? 'passed') === 'passed') return parts(counts).map(([count, , text]) => `${number(count)} ${text}`).join(', ');
  if (node.state === 'planned') return release?.stage ? `hosts: ${release.stage.hosts}` : node.spec.description;
  return node.message ?? node.attempts?.at(-1)?.failureMessage ?? node.outcome ?? 'goes on';
}
const MARKS = { passed: ['✓', 'ok'], overridden: ['✓', 'ok'], failed: ['✗', 'bad'] };
function nodeRow(node) {
  const begun = !node.state.startsWith('plan');
  const mark = MARKS[node.outcome] ?? (node.outcome ? ['–', 'faint'] : gate(node) ? ['◆', 'busy'] : begun ? ['●', 'busy'] : ['○', 'faint']);
  const release = node.spec.run?.release;
  const hosts = release && !release.preflight;
  const counts = hosts && hostCounts(node);
  return h('div', { className: hosts ? 'node' : 'node plain' }, word(...mark), h('span', {}, node.name),
    hosts && bar(counts ? parts(counts) : []), h(begun ? 'span' : 'small', {}, said(node, counts)));
}
function card(plan) {
  const [name, release] = plan.name.split('#');
  const nodes = ordered(plan.nodes ?? []);
  return h('div', { className: 'plan' },
    h('h3', {}, link(plan.name, 'plans', plan.id), ' ', word(...stated(plan)), ' ', small(over(plan) ? ago(plan.finishedAt) : ['for ', ago(plan.startedAt ?? plan.createdAt, '')],
      ` · in ${plan.workspace} · by ${plan.author}`)),
    nodes.map(nodeRow),
    nodeCount(plan) > PAGE && soft(pairs(plan.counts)),
    nodes.filter(gate).map((node) => p('note busy', `${node.name} waits for a person: `,
      code(`titan ${release ? 'rollout' : 'workplan'} ${node.held ? 'retry' : 'approve'} ${name} ${node.name} -w ${plan.workspace}`))),
    plan.reason && p(`note ${stated(plan)[1]}`, plan.reason));
}

// A section is built anew only when what it shows is another.
function section(parent, id, title, source, shown, build) {
  if (!$(id)) parent.append(h('section', { id }, h('h2', {}, title, ' ', small()), h('div')));
  const element = $(id);
  const note = element.querySelector('small');
  const { at, error } = seen[source] ?? {};
  if (note.said !== at + error) note.replaceChildren(at ? 'as of ' : '', at ? ago(at) : 'is asked for', error ? `: ${error}` : '');
  note.said = at + error;
  const key = JSON.stringify(shown, (name, value) => (/^(of|ageSeconds)$/.test(name) ? undefined : value));
  if (!shown || element.key === key) return;
  element.key = key;
  const focus = element.contains(document.activeElement) && document.activeElement.textContent;
  element.lastChild.replaceChildren(h('div', {}, build()));
  if (focus) [...element.querySelectorAll('a, button')].find((other) => other.textContent === focus)?.focus();
}
function pager(name, next) {
  const onclick = () => { pages[name] = next; renew(); };
  return (next || pages[name]) && h('button', { type: 'button', onclick }, next ? 'Next page' : 'First page');
}
function overview() {
  const main = $('main');
  const tiles = $('tiles') ?? main.appendChild(h('div', { id: 'tiles' }));
  const [ready, hosts, deployments, plans, statuses] = ['ready', 'hosts', 'deployments', 'plans', 'statuses'].map(data);
  const all = newest();
  const how = statuses ? 'statuses' : 'plans';
  const behind = ready && Math.floor(ready.planner.behindSeconds);
  const missing = ready && Object.keys(ready).filter((name) => ready[name].ready === false).join(', ');
  section(tiles, 'plane', 'Control plane', 'ready', ready && [missing, behind, ready.draining], () => [
    p('big', ready.draining ? word('stops', 'busy') : missing ? word(`not ready: ${missing}`, 'bad') : word('ready', 'ok')),
    soft(`version ${ready.version}`, behind > 0 && `; a change has waited for ${span(behind)}`)]);
  const tile = (title, source, states, rest, from = source) => section(tiles, `n-${source}`, title, from, states && [states, complete(source), rest], () => [
    p('big', number(states.length), ' ', !complete(source) && small('on this page', rest)), counted(states)]);
  tile('Hosts', 'hosts', hosts?.items.map(hostState), ready?.hosts > HOSTS && `, of some ${number(ready.hosts)}`);
  const states = deployments?.items.map((one) => deploymentState(one, all.get(place(one))));
  tile('Deployments', 'deployments', states, '', how);
  section(main, 'going', 'Under way', 'plans', plans && [plans.shown, plans.rest], () => [plans.shown.map(card), !plans.shown[0] && soft('Nothing.'),
    plans.rest > 0 && soft(`and ${plans.rest} more: `, code('titan workplan list'))]);
  const there = complete('deployments') && deployments.items.map(place);
  const ended = [...all].filter(([key, plan]) => TONES[plan.state] === 'bad' && (!there || there.includes(key) || !plan.name.includes('#'))).slice(0, 10).map(([, plan]) => plan);
  const known = Object.values(statuses ?? {});
  const unplaced = known.flatMap((of) => (of.problems ?? []).map(({ detail }) => p('note bad', toDeployment(of), ` ${detail}`)));
  // Hosts that say the same of a deployment are one row.
  const failed = Object.values(Object.groupBy(rows(known, (row) => row.state === 'failed'), (row) => place(row.of) + told(row))).map((all) => ({ ...all[0], more: all.length - 1 }));
  section(main, 'failed', 'What failed', how, plans && [ended, known.map((of) => of.problems), failed], () => [
    ended.map(card), unplaced, failed[0] ? hostTable(failed, 'Host', 'Deployment')
      : !ended[0] && !unplaced[0] && soft(statuses ? 'Nothing.' : 'None of the newest rollouts.')]);
  section(main, 'deployments', 'Deployments', how, deployments && [deployments, states, [...all.keys()], known.map((of) => of.counts)], () => [
    table(['Name', 'State', 'Release', 'Hosts', 'Target'], deployments.items.map((one, at) => {
      const counts = statuses?.[place(one)]?.counts;
      return [toDeployment(one), word(...states[at]), all.get(place(one))?.name, counts && `${counts.healthy} of ${counts.desired} healthy`, one.target];
    })), pager('deployments', deployments.next)]);
  section(main, 'hosts', 'Hosts', 'hosts', hosts, () => [
    table(['Name', 'State', 'Seen', 'Agent', 'Labels'], hosts.items.toSorted((one, other) => one.online - other.online).map((host) => [link(host.name, 'hosts', host.name),
      [word(...hostState(host)), host.cordoned && ' cordoned'], ago(host.lastSeen), `${host.facts?.agentVersion ?? ''} ${host.facts?.arch ?? ''}`, pairs(host.labels)])), pager('hosts', hosts.next)]);
}
const part = (title, child) => [h('h2', {}, title), child];
const elsewhere = (text) => soft('In small fleets only; ask ', code(text));
const DETAILS = {
  plans: {
    ask: async (id) => ({ plan: await whole(await get(PLAN, { id })) }),
    show: ({ plan }) => card(plan),
  },
  deployments: {
    async ask(workspace, name) {
      const of = { workspace, name };
      const document = await get(DEPLOYMENT, of);
      const plan = await maybe(get(API.rollout, of));
      return { document, plan: plan && await whole(plan), status: (size() <= FEW || document.spec.replicas <= FEW) && await get(API.status, of) };
    },
    show: ({ document: { metadata, spec }, plan, status }) => [
      facts([['Workspace', metadata.workspace], ['Workload', spec.workload], ['Target', spec.target], ['Changed', ago(metadata.revision)]]),
      status?.problems?.map(({ detail }) => p('note bad', detail)),
      part('Newest rollout', plan ? card(plan) : soft('There is no release yet.')),
      part('Hosts', status ? hostTable(status.hosts, 'Host') : elsewhere(`titan status deployment ${metadata.name} -w ${metadata.workspace}`))],
  },
  hosts: {
    ask: async (name) => ({ document: await get(API.host, { name }) }),
    show: ({ document: { metadata, spec, status = {} } }) => [
      facts([['State', [word(...hostState(status)), spec.cordoned && ' cordoned', status.deletingSince && ' being deleted']], ['Seen', ago(status.lastSeen)],
        ['Enrolled', ago(status.enrolledAt)], ['Labels', pairs(metadata.labels)], ['Facts', pairs(status.facts)],
        ['Drift', Object.entries(status.drift ?? {}).map(([of, all]) => `${of}: ${all.map((one) => `${one.what} (${one.how})`).join(', ')}`).join('; ')],
        ['Orphans', status.orphans?.map(place).join(', ')]]),
      part('Deployments', data('statuses') ? hostTable(rows(Object.values(data('statuses')), (row) => row.host === metadata.name), 'Deployment') : elsewhere(`titan status host ${metadata.name}`))],
  },
};
function paint() {
  $('main').hidden = $('leave').hidden = $('open').hidden = !token;
  $('enter').hidden = !!token;
  const lost = Object.values(sources).filter((source) => token && source.fails && source.lost);
  const left = (Math.min(...lost.map((source) => source.due)) - Date.now()) / 1000;
  const text = lost[0] ? `Cannot reach the control plane; ${left > 0 ? `the next try is in ${span(left)}` : 'trying'}.` : '';
  if ($('link').textContent !== text) $('link').textContent = text;
  if (!token) return;
  if (route.kind) {
    const found = data('detail');
    section($('main'), 'detail', route.args.at(-1), 'detail', found && [found, seen.statuses?.at], () => DETAILS[route.kind].show(found));
  } else overview();
  document.querySelectorAll('time').forEach(tick);
}
function turn() {
  if (token && !document.hidden) for (const name in sources) {
    const { busy, due = 0, when } = sources[name];
    if (when && !when()) {
      delete seen[name];
      sources[name].fails = 0;
    } else if (!busy && Date.now() >= due) look(name);
  }
  listen();
  paint();
}
// Asks for everything anew.
function renew() {
  era += 1;
  for (const source of Object.values(sources)) Object.assign(source, { due: 0, fails: 0, busy: false });
  turn();
}
function go() {
  let [kind, ...args] = location.hash.slice(2).split('/');
  try { args = args.map(decodeURIComponent); } catch { kind = ''; }
  route = Object.hasOwn(DETAILS, kind) && args.length === DETAILS[kind].ask.length ? { kind, args } : {};
  delete seen.detail;
  $('main').replaceChildren();
  renew();
}
function enter(given, why) {
  token = given;
  if (given) sessionStorage.setItem(KEY, given); else sessionStorage.removeItem(KEY);
  $('token').value = '';
  $('refused').textContent = why;
  seen = {};
  go();
  if (!given) $('token').focus();
}
const leave = (why) => enter(null, why);
$('leave').onclick = () => leave('');
$('enter').onsubmit = (event) => {
  event.preventDefault();
  const given = $('token').value.trim();
  if (/^[!-~]+$/.test(given)) enter(given, ''); else leave('A token is one word.');
};
$('open').onchange = ({ target }) => { location.hash = `#/hosts/${encodeURIComponent(target.value.trim())}`; };
addEventListener('hashchange', go);
document.addEventListener('visibilitychange', turn);
setInterval(turn, 1000);
go();
