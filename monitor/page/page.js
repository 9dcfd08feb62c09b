// Draws every view that arrives. Elements that have not changed stay untouched, which keeps focus and scroll position.
// Figures older than a few observations are greyed out and show their age.
import { counted, el, number, plot, spark } from './charts.js';

const $ = (id) => document.getElementById(id);
const quiet = (text) => el('p', { class: 'quiet' }, text);
let view;
let drawnSnapshot;
/** When the view arrived, by a clock that never steps. */
let viewAtMs = 0;
/** Whether the monitor answers and observes. */
let isLive = false;
const staleAfterMs = 10_000;

const events = new EventSource('events');
events.addEventListener('view', ({ data }) => {
  view = JSON.parse(data);
  viewAtMs = performance.now();
  isLive = true;
  link('live', 'live');
  draw();
});
events.addEventListener('failure', ({ data }) => {
  isLive = false;
  link('lost', 'observation failed');
  headline({ severity: 'bad', text: JSON.parse(data).text, command: 'reelflow lag' });
  ages();
});
events.addEventListener('error', () => {
  isLive = false;
  link('lost', 'no connection to the monitor');
  const text = 'The monitor does not answer. The figures below are old.';
  headline({ severity: 'bad', text, command: 'reelflow monitor' });
  ages();
});
setInterval(ages, 1_000);

function link(state, text) {
  $('link').dataset.state = state;
  unlessSame($('link'), text, () => [text]);
}

/** Replaces the children of an element when what they are drawn from has changed. */
function unlessSame(element, from, children) {
  const text = JSON.stringify(from);
  if (element.drawnFrom === text) return;
  element.drawnFrom = text;
  element.replaceChildren(...children().filter((child) => child !== false));
}

function draw() {
  const { namespace, verdict, problems, stages, rows, snapshots, letters } = view;
  unlessSame($('namespace'), namespace, () => [namespace]);
  headline(verdict, problems);
  unlessSame($('flow'), [stages, rows.length, snapshots?.[0]], () => flow(stages, snapshots));
  drawLags(stages, rows);
  unlessSame($('snapshots'), snapshots, () => [snapshotList(snapshots)]);
  unlessSame($('letters'), letters, () => [letterList(letters)]);
  const current = snapshots?.find(({ isCurrent }) => isCurrent)?.id;
  if (current !== undefined && current !== drawnSnapshot) void drawPlots(current);
  ages();
}

/** Shows the verdict with its next command, and all other problems with theirs. */
function headline({ severity, text, command }, problems = []) {
  $('headline').dataset.state = severity;
  unlessSame($('verdict'), text, () => [text]);
  $('next').hidden = command === null;
  unlessSame($('next'), command, () => (command === null ? [] : ['Next: ', el('code', {}, command)]));
  const others = problems.filter((problem) => problem.text !== text);
  unlessSame($('problems'), others, () => others.map(problemLine));
  document.title = severity === 'bad' ? `⚠ ${text}` : 'reelflow';
}

const problemLine = ({ text, command }) =>
  el('li', {}, text, command === null ? '' : [' ', el('code', {}, command)]);

const rate = (perSecond) => (perSecond === null ? '–' : number(perSecond, perSecond < 10 ? 1 : 0));
const badge = (state, whyUnknown) =>
  el('span', { class: 'state', 'data-state': state ?? 'unknown', title: whyUnknown }, state ?? 'unknown');
const moves = (perSecond) => ((perSecond ?? 0) >= 0.05 ? 'yes' : 'no');

function flow(stages, snapshots) {
  const processors = stages.find(({ name }) => name === 'processors');
  const sink = stages.find(({ name }) => name === 'sink');
  const [newest] = snapshots ?? [];
  const pipe = (name, perSecond) =>
    el(
      'li',
      { class: 'pipe', 'data-moves': moves(perSecond), 'aria-hidden': 'true' },
      el('i'),
      el('span', {}, name),
    );
  const stage = (name, state, figure, ...lines) =>
    el(
      'li',
      { class: 'stage' },
      el('h3', {}, name, state),
      el('p', { class: 'figure' }, figure),
      lines.map((line) => el('p', {}, line)),
    );
  const figure = (value, unit) => [value, ' ', el('small', {}, unit)];
  const working = (title, of, unit) =>
    stage(
      title,
      badge(of?.group.state, of?.group.whyUnknown),
      figure(rate(of?.group.consumedPerSecond ?? null), unit),
      of === undefined
        ? 'unknown'
        : of.group.members === null
          ? 'members unknown'
          : counted(of.group.members, 'member'),
      of === undefined ? '' : waitingText(of.group),
    );
  return [
    stage(
      'Producers',
      null,
      figure(rate(processors?.group.producedPerSecond ?? null), 'chunks/s'),
      'write files as chunks to topics',
    ),
    pipe('imdb.title.*', processors?.group.producedPerSecond),
    working('Processors', processors, 'chunks/s'),
    pipe('reelflow.deltas', sink?.group.producedPerSecond),
    working('Sink', sink, 'messages/s'),
    pipe('snapshots', sink?.group.consumedPerSecond),
    stage(
      'Gold',
      null,
      newest === undefined ? figure('–', 'no snapshot') : figure(number(sumOf(newest.rows)), 'rows'),
      newest === undefined ? '' : el('time', { datetime: newest.created, 'data-age': newest.created }),
      newest === undefined ? '' : counted(newest.records, 'record'),
    ),
  ];
}

function waitingText({ lag, lagRecords, catchUpMs, catchesUp, timeLagMs }) {
  if (lag === null) return 'lag unknown';
  if (lag === 0) return 'no lag';
  const records = lagRecords ? ` (${counted(lagRecords, 'record')})` : '';
  const waits = `${counted(lag, 'message waits', 'messages wait')}${records}`;
  return `${waits}, ${duration(timeLagMs)} behind, ${catchUp({ catchUpMs, catchesUp })}`;
}

const catchUp = ({ catchUpMs, catchesUp }) =>
  catchesUp === false
    ? 'never caught up'
    : catchUpMs === null
      ? 'time to catch up unknown'
      : `caught up in ${duration(catchUpMs)}`;

const lagColumns = [
  ['topic / partition', ''],
  ['state', ''],
  ['lag', 'number'],
  ['trend', 'wide'],
  ['behind', 'number'],
  ['done in', 'number'],
  ['in / out per second', 'number wide'],
];
const lagTables = new Map();

/** Draws a table for each group, and removes those of groups that a pattern no longer matches. */
function drawLags(stages, rows) {
  if (rows.length === 0 && stages.every(({ name }) => name !== 'other')) return;
  for (const [name, { frame }] of lagTables) {
    if (stages.some(({ group }) => group.group === name)) continue;
    frame.remove();
    lagTables.delete(name);
  }
  for (const stage of stages) drawLag(stage, rows);
}

/** Draws the rows of one stage into its table, which is kept because it may be scrolled or focused. */
function drawLag({ name, group }, rows) {
  if (!lagTables.has(group.group)) {
    const isOther = name === 'other';
    const who = isOther ? `Group ${group.group}` : name === 'sink' ? 'Sink' : 'Processors';
    const caption = `${who}, in messages`;
    const verdict = el('span');
    const heads = lagColumns.map(([text, kind]) => el('th', { scope: 'col', class: kind }, text));
    const body = el('tbody');
    const table = el(
      'table',
      {},
      el(
        'caption',
        {},
        caption,
        ' ',
        el('span', { class: 'quiet' }, isOther ? '' : group.group),
        ' ',
        verdict,
      ),
      el('thead', {}, el('tr', {}, heads)),
      body,
    );
    // A scrollable region needs the focus for keyboards.
    const region = { class: 'scroll lag-group', role: 'region', tabindex: '0', 'aria-label': caption };
    if (lagTables.size === 0) $('lag').replaceChildren();
    const frame = el('div', region, table);
    $('lag').append(frame);
    lagTables.set(group.group, { frame, body, verdict });
  }
  const { body, verdict } = lagTables.get(group.group);
  unlessSame(verdict, [group.state, group.whyUnknown, group.lost, group.blocked, group.expiresMs], () => [
    badge(group.state),
    group.state === null && el('span', { class: 'quiet' }, ` ${group.whyUnknown}`),
    ...groupNotes(group).map((text) => el('span', { class: 'quiet' }, ` · ${text}`)),
  ]);
  body.replaceChildren(...rows.filter((row) => row.group === group.group).map(lagRow));
}

function groupNotes({ lost, blocked, expiresMs }) {
  return [
    lost > 0 && `${number(lost)} lost`,
    blocked > 0 && `${number(blocked)} withheld by an open transaction`,
    expiresMs !== null && `oldest unread message expires in ${duration(expiresMs)}`,
  ].filter(Boolean);
}

function lagRow(row) {
  // A partition that never held a message has no lag.
  const isEmpty = row.endOffset === 0 && (row.nextOffset ?? 0) === 0;
  const or = (text) => (isEmpty ? '–' : text);
  const recent = row.trend.slice(-5).map((value) => number(value));
  const cells = [
    rowState(row, isEmpty),
    or(number(row.lag)),
    spark(row.trend, `recent lag: ${recent.join(', ')}`),
    or(duration(row.timeLagMs)),
    or(row.catchesUp === false ? 'never' : duration(row.catchUpMs)),
    or(`${rate(row.producedPerSecond)} / ${rate(row.consumedPerSecond)}`),
  ];
  const { namespace } = view;
  // Without the common prefix; the title shows the whole name.
  const own = namespace === '' ? '' : `${namespace}.`;
  const topic = (row.topic.startsWith(own) ? row.topic.slice(own.length) : row.topic).replace(/^imdb\./, '');
  return el(
    'tr',
    { class: isEmpty || !row.isSubscribed ? 'quiet' : null },
    el('th', { scope: 'row', title: row.topic }, `${topic} / ${row.partition}`),
    cells.map((cell, at) => el('td', { class: lagColumns[at + 1][1] }, cell)),
  );
}

function rowState(row, isEmpty) {
  if (isEmpty) return el('span', { class: 'state' }, 'empty');
  if (!row.isSubscribed) return el('span', { class: 'state', title: row.whyUnknown }, 'not subscribed');
  const title = [row.whyUnknown, ...groupNotes(row)].filter(Boolean).join('; ');
  return badge(row.state, title === '' ? null : title);
}

function snapshotList(snapshots) {
  if (snapshots === null) return quiet('The gold folder cannot be read.');
  if (snapshots.length === 0) return quiet('No snapshot yet.');
  const line = ({ id, created, isCurrent, isPinned, rows, bytes, records }) => {
    const tables = Object.entries(rows).map(([table, count]) => `${table} ${number(count)}`);
    return el(
      'li',
      {},
      el(
        'div',
        { class: 'row' },
        el('span', {}, id, ' ', isCurrent && badge('CURRENT'), isPinned && badge('pinned')),
        el('time', { datetime: created, 'data-age': created, class: 'quiet' }),
      ),
      el('p', {}, `${counted(sumOf(rows), 'row')} of ${counted(records, 'record')}, ${size(bytes)}`),
      el('details', {}, el('summary', {}, 'Tables'), el('p', {}, tables.join(', '))),
    );
  };
  return el('ol', { class: 'snapshots card' }, snapshots.map(line));
}

function letterList(letters) {
  if (letters === null) return quiet('Dead letters cannot be read now.');
  if (letters.groups.length === 0) return quiet('No dead letters.');
  const head = ['stage', 'reason', 'from', 'open', 'all'];
  const table = el(
    'table',
    {},
    el('caption', { class: 'unseen' }, 'Dead letters by kind'),
    el(
      'thead',
      {},
      el(
        'tr',
        {},
        head.map((text, at) => el('th', { scope: 'col', class: at > 2 ? 'number' : null }, text)),
      ),
    ),
    el(
      'tbody',
      {},
      letters.groups.map(({ stage, reason, source, open, letters: all }) =>
        el(
          'tr',
          {},
          el('td', {}, stage),
          el('td', {}, reason),
          el('td', {}, source),
          el('td', { class: 'number' }, number(open)),
          el('td', { class: 'number' }, number(all)),
        ),
      ),
    ),
  );
  const one = ({ at, timeMs, reason, detail, fate }) => {
    const look = el(
      'button',
      { type: 'button', 'aria-label': `Inspect the dead letter at ${at}` },
      'Inspect',
    );
    look.addEventListener('click', () => void showLetter(at));
    return el(
      'li',
      { class: 'row' },
      el(
        'div',
        {},
        el('span', {}, reason, ' ', badge(fate)),
        el('p', {}, el('time', { 'data-age': new Date(timeMs).toISOString() }), ': ', detail),
      ),
      look,
    );
  };
  return el(
    'div',
    { class: 'card' },
    el(
      'div',
      { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': 'Dead letters by kind' },
      table,
    ),
    el('h3', {}, 'Newest'),
    el('ul', { class: 'letters' }, letters.latest.slice(0, 8).map(one)),
  );
}

async function showLetter(at) {
  $('letter-title').textContent = `Dead letter ${at}`;
  $('letter-body').replaceChildren(quiet('Opening …'));
  $('letter').showModal();
  const answer = await fetch(`letter?at=${encodeURIComponent(at)}`)
    .then((response) => response.json())
    .catch((error) => ({ error: String(error) }));
  if (answer.error !== undefined) {
    $('letter-body').replaceChildren(quiet(answer.error));
    return;
  }
  const { stage, reason, detail, time, source, original, originalBytes, today } = answer;
  const from =
    source.file === undefined
      ? `${source.topic}/${source.partition}, offset ${source.offset}`
      : `${source.file}, line ${source.line}`;
  const facts = { stage, reason, detail, from, time, bytes: number(originalBytes) };
  $('letter-body').replaceChildren(
    el(
      'dl',
      {},
      Object.entries(facts).map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]),
    ),
    el('h3', {}, 'Original'),
    el('pre', { tabindex: '0' }, original),
    el('h3', {}, 'Now'),
    today.refused !== undefined
      ? el('p', {}, `It would be refused again: ${today.refused}: ${today.detail}`)
      : el(
          'p',
          {},
          `It would be accepted: ${counted(today.records, 'record')} and ${counted(today.deletes, 'delete')} of ${today.dataset}. `,
          el('code', {}, 'reelflow dlq replay'),
          ' sends it again.',
        ),
    today.rows === undefined
      ? ''
      : el('pre', { tabindex: '0' }, today.rows.map((row) => JSON.stringify(row)).join('\n')),
  );
}

async function drawPlots(snapshot) {
  drawnSnapshot = snapshot;
  try {
    const response = await fetch(`plots?snapshot=${encodeURIComponent(snapshot)}`);
    const { plots, error } = await response.json();
    if (error !== undefined) throw new Error(error);
    if (drawnSnapshot !== snapshot) return;
    $('gold-of').textContent = snapshot;
    $('plots').replaceChildren(...plots.map(plot));
  } catch {
    // Removed meanwhile, or a slow disk: the next view tries again.
    drawnSnapshot = undefined;
  }
}

/** Updates every displayed age, and greys out figures that are no longer current. */
function ages() {
  for (const time of document.querySelectorAll('[data-age]')) {
    const text = `${duration(Date.now() - Date.parse(time.dataset.age))} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
  if (view === undefined) return;
  const sinceView = performance.now() - viewAtMs;
  const figuresAge = view.figuresAgeMs === null ? null : view.figuresAgeMs + sinceView;
  const isStale = !isLive || sinceView > staleAfterMs || figuresAge === null || figuresAge > staleAfterMs;
  document.body.dataset.stale = String(isStale);
  $('age').hidden = !isStale;
  const text = figuresAge === null ? 'No figures yet.' : `Figures are ${duration(figuresAge)} old.`;
  unlessSame($('age'), text, () => [text]);
  $('looked').textContent = `Last update ${new Date(view.atMs).toLocaleTimeString()}.`;
}

function duration(ms) {
  if (ms === null || ms === undefined) return 'unknown';
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10 && ms > 0) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

const sumOf = (rows) => Object.values(rows).reduce((sum, count) => sum + count, 0);
const size = (bytes) => (bytes < 1e6 ? `${number(bytes / 1e3)} kB` : `${number(bytes / 1e6, 1)} MB`);
