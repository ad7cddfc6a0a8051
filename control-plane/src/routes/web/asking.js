
'use strict';
// What is asked of the API.
const [DEPLOYMENT, PLAN] = ['/v1/workspaces/{workspace}/deployments/{name}', '/v1/workplans/{id}'];
const API = {
  ready: '/readyz', metrics: '/metrics', changes: '/v1/changes', hosts: '/v1/hosts', host: '/v1/hosts/{name}',
  deployments: '/v1/deployments', status: DEPLOYMENT + '/status', rollout: DEPLOYMENT + '/rollout',
  plans: '/v1/workplans', nodes: PLAN + '/nodes', events: PLAN + '/events',
};
// Every answer is bounded: PAGE rows of a list, HOSTS of that of hosts. What has a row for each host is asked of all
// deployments, up to ASKED, while there are up to SMALL hosts, and of one that is opened while there are up to FEW.
// WATCHED plans are shown with their nodes, and ROWS rows of a table.
const [PAGE, HOSTS, SMALL, FEW, ASKED, WATCHED, ROWS] = [100, 500, 300, 2000, 20, 4, 200];
const KEY = 'titan-token';
// The states in which plans end, and those of deployments on hosts that are over as well.
const TONES = { succeeded: 'ok', failed: 'bad', aborted: 'bad', rolledBack: 'bad', superseded: 'faint', healthy: 'ok', offline: 'faint' };
const SPOKEN = { planning: 'not started', rollingBack: 'being taken back', rolledBack: 'taken back', aborting: 'being stopped', aborted: 'stopped' };

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(KEY);
// How far the control plane's clock is ahead of this one's.
let skew = 0;
// Counts what makes answers that are on their way useless.
let era = 0;
let route = {};
// By source: what it said last, when, and what was wrong.
let seen = {};
// Where the pages of lists that are shown begin.
const pages = {};

// Text is text: nothing that the API says is ever read as markup.
function h(tag, props, ...children) {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children.flat(4).filter(Boolean));
  return element;
}
const p = (className, ...children) => h('p', { className }, ...children);
const small = (...children) => h('small', {}, ...children);
const soft = (...children) => p('', small(...children));
const code = (text) => h('code', {}, text);
const link = (text, ...path) => h('a', { href: '#/' + path.map(encodeURIComponent).join('/') }, text);
const word = (text, tone) => h('b', { className: tone }, text);
const number = (count) => count.toLocaleString('fr');
const now = () => Date.now() + skew;
const data = (name) => seen[name]?.data;
const place = ({ workspace, name }) => `${workspace}/${name}`;
const over = (plan) => plan.state in TONES;
const nodeCount = (plan) => Object.values(plan.counts).reduce((sum, count) => sum + count, 0);
const pairs = (map) => Object.entries(map ?? {}).map(([key, value]) => `${key}=${value}`).join(' ');
const toDeployment = (of) => link(of.workspace === 'default' ? of.name : place(of), 'deployments', of.workspace, of.name);

function span(seconds) {
  const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min']].find(([size]) => seconds >= 2 * size) ?? [1, 's'];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}
// A time as how long ago it is, or how long until then; it goes on by itself.
const ago = (at, end = ' ago', until = 1) => (at ? tick(h('time', { dateTime: at, title: at, end, until })) : '');
function tick(time) {
  const text = span(time.until * (now() - Date.parse(time.dateTime.slice(0, 19) + 'Z')) / 1000) + time.end;
  if (time.textContent !== text) time.textContent = text;
  return time;
}
function bar(parts) {
  const title = parts.map(([count, , text]) => `${count} ${text}`).join(', ');
  return h('div', { className: 'bar', role: 'img', title }, parts.filter(([count]) => count).map(([count, className]) => {
    const part = h('i', { className });
    part.style.flex = `${count} 1 0`;
    return part;
  }));
}
// A bar of how many are how, with what it means.
function counted(states) {
  const counts = {};
  for (const [text, tone] of states) (counts[text] ??= [0, tone, text])[0] += 1;
  const parts = Object.values(counts).sort((one, other) => other[0] - one[0]);
  return [bar(parts), p('key', parts.map(([count, className, text]) => h('span', {}, h('i', { className }), `${number(count)} ${text}`)))];
}
function table(headings, rows) {
  const row = (tag, cells) => h('tr', {}, cells.map((cell) => h(tag, {}, cell)));
  return [h('table', {}, h('thead', {}, row('th', headings)), h('tbody', {}, rows.slice(0, ROWS).map((cells) => row('td', cells)))),
    rows.length > ROWS && soft(`and ${number(rows.length - ROWS)} more`)];
}
const facts = (all) => table([], all.filter(([, value]) => value).map(([name, value]) => [small(name), value]));

function request(path, args, query, signal, accept = '*/*') {
  const url = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(args[name])) + (query ? `?${new URLSearchParams(query)}` : '');
  return fetch(url, { headers: { accept, authorization: `Bearer ${token}` }, signal, cache: 'no-store' });
}
async function get(path, args, query) {
  const answer = await request(path, args, query, AbortSignal.timeout(15000));
  const date = Date.parse(answer.headers.get('date'));
  if (Math.abs(date - now()) > 2000) skew = date - Date.now();
  if (path === API.metrics && answer.ok) return answer.text();
  const body = await answer.json().catch(() => null);
  if (body && (answer.ok || body.database)) return body;
  throw Object.assign(new Error(body?.detail ?? `it answered ${answer.status}`), { status: body?.code && answer.status, after: +answer.headers.get('retry-after') });
}
// Waits for what is asked for; it is null if that is not there.
const maybe = (asked) => asked.catch((error) => { if (error.status === 404) return null; throw error; });
async function whole(plan) {
  const [status, nodes] = await Promise.all([get(PLAN, plan), nodeCount(plan) <= PAGE && get(API.nodes, plan, { limit: PAGE })]);
  return { ...status, nodes: nodes?.items ?? status.current ?? [] };
}
async function listed(name, limit) {
  const { items, continue: next } = await get(API[name], {}, { limit, ...(pages[name] && { continue: pages[name] }) });
  return { next, items: items.map(({ metadata, spec, status }) => ({ ...spec, ...status, ...metadata })) };
}
const complete = (name) => data(name) && !data(name).next && !pages[name];
const size = () => (complete('hosts') ? data('hosts').items.length : Math.max(data('ready')?.hosts || Infinity, SMALL + 1));

// Where figures come from, and after how many seconds they are asked for again.
const sources = {
  ready: { every: 10, ask: async () => ({ ...await get(API.ready), hosts: +/^titan_view_hosts (\d+)/m.exec(await get(API.metrics))?.[1] }) },
  plans: { every: 5, async ask() {
    const items = (await get(API.plans, {}, { limit: PAGE })).items.filter((plan) => !plan.parent);
    const going = items.filter((plan) => !over(plan));
    return { items, rest: going.length - WATCHED, shown: await Promise.all(going.slice(0, WATCHED).map(whole)) };
  } },
  hosts: { every: 20, ask: () => listed('hosts', HOSTS) },
  deployments: { every: 20, ask: () => listed('deployments', PAGE) },
  statuses: { every: 10, when: () => size() <= SMALL && complete('deployments') && data('deployments').items.length <= ASKED, async ask() {
    const all = {};
    for (const one of data('deployments').items) {
      const status = await maybe(get(API.status, one));
      if (status) all[place(one)] = status;
    }
    return all;
  } },
  detail: { every: 5, when: () => route.kind && data('hosts'), ask: () => DETAILS[route.kind].ask(...route.args) },
};
async function look(name) {
  const source = sources[name];
  const begun = era;
  Object.assign(source, { busy: true, again: false });
  let wait = source.every;
  try {
    const found = await source.ask();
    if (begun !== era) return;
    seen[name] = { data: found, at: new Date(now()).toISOString() };
    // Whoever failed beside it is tried now.
    if (source.fails) Object.values(sources).forEach((other) => { if (other.fails) other.due = 0; });
    source.fails = 0;
    if (name === 'plans' && found.shown.length) wait = 2;
    if (source.again) wait = 1;
  } catch (error) {
    if (begun !== era) return;
    if (error.status === 401 || error.status === 403) return leave(`The token was refused: ${error.message}`);
    source.fails = (source.fails || 0) + 1;
    source.lost = !error.status || error.status >= 429;
    seen[name] = { ...seen[name], error: error.message };
    wait = Math.max(wait, error.after || 0, Math.min(60, 2 ** source.fails) * (0.5 + Math.random() / 2));
  } finally {
    if (begun === era) Object.assign(source, { busy: false, due: Date.now() + 1000 * wait });
    paint();
  }
}

// Streams say that something happened; what did is asked for as ever.
const streams = {};
function listen() {
  const wanted = {};
  if (token && !document.hidden) {
    wanted.changes = [API.changes, {}, { kind: 'Deployment', since: new Date(now()).toISOString() }];
    const plan = [data('detail')?.plan, ...(data('plans')?.shown ?? [])].find((plan) => plan && !over(plan));
    if (plan) wanted[plan.id] = [API.events, plan, { since: plan.version }];
  }
  for (const key in streams) if (!wanted[key] || Date.now() > streams[key].until) { streams[key].abort(); delete streams[key]; }
  for (const key in wanted) if (!streams[key]) hear(streams[key] = new AbortController(), wanted[key]);
}
async function hear(stream, asked) {
  try {
    const reader = (await request(...asked, stream.signal, 'text/event-stream')).body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = '', part; !(part = await reader.read()).done;) {
      text = text.slice(-6) + part.value;
      if (text.includes('\ndata:')) for (const name of ['plans', 'deployments', 'statuses', 'detail']) {
        const source = sources[name];
        source.again = true;
        if (!source.fails) source.due = Math.min(source.due, Date.now() + 1000);
      }
    }
  } catch {
    // It is opened again.
  }
  stream.until = Date.now() + 10000;
}
