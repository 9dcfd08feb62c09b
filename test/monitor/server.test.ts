/**
 * The page, as a browser shows it. Method: a pipeline of its own on the real broker, the real command, a real Chromium;
 * the processor is killed, and what the page says is read as people and screen readers do, by role and name. Without a
 * Chromium (Debian: `apt-get install chromium`) these tests are skipped, and the run says so. With
 * REELFLOW_SCREENSHOTS=1 the tests take the pictures in docs/ again.
 */
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, vi } from 'vitest';
import type { View } from '../../monitor/overview.ts';
import { problemsOf, verdictOf } from '../../monitor/problems.ts';
import { type PageOptions, servePage } from '../../monitor/server.ts';
import type { StageLine } from '../../monitor/stage-history.ts';
import { createLogger } from '../../runtime/logger.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { hasBrowser, openBrowser, startMonitor, whyNoBrowser } from '../support/browser.ts';
import { smallDataset, spoken, test, until } from '../support/harness.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const patience = { timeout: 120_000 };
const pictures = fileURLToPath(new URL('../../docs/monitor', import.meta.url));

describe.skipIf(!hasBrowser)(`the page in Chromium${whyNoBrowser}`, () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await openBrowser();
  });

  afterAll(async () => {
    await browser?.close();
  });

  test('the page shows the pipeline, and says so when a processor is killed', async ({ place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 400, 3);
    const bad = place.files('bad', {
      'title.ratings.tsv': `tconst\taverageRating\tnumVotes\n<b>tt1</b>\t5.0\t1\n`,
    });
    const processor = place.start(place.args('process'));
    await place.replay(data);
    // Last, so that it is the newest of the dead letters.
    const broken = await place.run(place.args('replay', '--upsert', join(bad, 'title.ratings.tsv')));
    expect(broken.code).toBe(34);
    await until('the processor has caught up', () => place.hasCaughtUp(), patience.timeout);
    const sink = place.start(place.args('sink', '--interval', '2s'));
    await until('there is a snapshot', () => currentSnapshot(place.gold) !== undefined, patience.timeout);
    const monitor = await startMonitor(place);

    const context = await browser.newContext({ viewport: { width: 1200, height: 900 } });
    const page = await context.newPage();
    const faults: string[] = [];
    const asked: string[] = [];
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(message.text());
    });
    page.on('request', (sent) => asked.push(`${sent.method()} ${sent.url()}`));
    await page.goto(monitor.url);

    // Flow, lag, snapshot with its content, plots.
    const flow = page.getByRole('region', { name: 'Pipeline flow' });
    await flow.getByText('1 member').nth(1).waitFor(patience);
    await page
      .getByRole('region', { name: 'Processors, in messages' })
      .getByRole('row', { name: /title\.ratings \/ 0 OK 0/ })
      .waitFor(patience);
    await page.getByRole('region', { name: 'Snapshots' }).getByText('CURRENT').waitFor(patience);
    const plots = page.getByRole('figure');
    await plots.first().waitFor(patience);
    expect(await plots.allInnerTexts()).toEqual(
      expect.arrayContaining([expect.stringContaining('Titles by genres')]),
    );

    // Prometheus gets the same figures as the page.
    const metrics = await (await fetch(new URL('/metrics', monitor.url))).text();
    const labels = `group="${place.names.processorGroup}",topic="${place.names.source('title.ratings')}",partition="0"`;
    expect(metrics).toContain(`reelflow_group_state{${labels},state="OK"} 1`);

    // Dead letters and the details of one, by keyboard alone. Their content is shown as text.
    const look = page.getByRole('button', { name: 'Inspect the dead letter at' }).first();
    await look.focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.getByText('<b>tt1</b>').first().waitFor(patience);
    await dialog.getByText('It would be refused again: id').waitFor(patience);
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    expect(await look.evaluate((button) => button.matches(':focus'))).toBe(true);
    await picture(page, 'light');
    await picture(page.getByRole('region', { name: /^Gold/ }), 'gold');

    // Small, dark, and nothing sticks out.
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(18, 21, 24)');
    await picture(page, 'dark');
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 360, height: 780 });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    await picture(page, 'phone');
    await page.setViewportSize({ width: 1200, height: 900 });

    // A scrolled table stays where it is, and focused, while views come.
    const lag = page.getByRole('region', { name: 'Processors, in messages' });
    await lag.focus();

    // The processor is killed: at first no member is missing, then messages wait.
    processor.kill('SIGKILL');
    await processor.done;
    const verdict = page.locator('#headline');
    await verdict.getByText('No processor is running').waitFor(patience);
    await place.upsert(data);
    await verdict.getByRole('heading', { name: 'Processors have stopped' }).waitFor(patience);
    await flow.getByText('STOP').waitFor(patience);
    expect(await page.title()).toContain('Processors have stopped');
    const { gold, state, namespace } = place;
    const command = `reelflow process --gold ${gold} --state ${state} --namespace ${namespace}`;
    await verdict.getByText(command).waitFor(patience);
    expect(await page.evaluate('document.body.dataset.stale')).toBe('false');
    // The mean of the last minute is not the rate of a group without members.
    const box = flow.getByRole('listitem').filter({ has: page.getByRole('heading', { name: 'Processors' }) });
    await box.getByText('0 chunks/s').waitFor(patience);
    expect(await lag.evaluate((region) => region.matches(':focus'))).toBe(true);
    await picture(page, 'stopped');

    // The page shows that the monitor has ended.
    await Promise.all([monitor.running.terminate(), sink.terminate()]);
    await page.getByText('The monitor does not answer').waitFor(patience);
    await page.getByText(/^Figures are .+ old\.$/).waitFor(patience);
    expect(await page.evaluate('document.body.dataset.stale')).toBe('true');
    // Nothing was changed, nothing came from elsewhere, and the policy had nothing to refuse.
    expect(asked.filter((line) => !line.startsWith(`GET ${monitor.url}`))).toEqual([]);
    expect(
      faults.filter(
        (text) => !/ERR_(CONNECTION_REFUSED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED|NETWORK)/.test(text),
      ),
    ).toEqual([]);
    await context.close();
  });

  async function picture(of: Page | Locator, name: string): Promise<void> {
    if (process.env.REELFLOW_SCREENSHOTS !== '1') return;
    mkdirSync(pictures, { recursive: true });
    if ('goto' in of) await of.evaluate('scrollTo(0, 0)');
    await of.screenshot({ path: join(pictures, `${name}.png`) });
  }
});

describe('the server of the page', () => {
  const view = {
    atMs: 1,
    namespace: 'n',
    verdict: { severity: 'good', text: 'The pipeline is healthy.', command: null },
    problems: [],
    figuresAgeMs: 0,
    stages: [],
    rows: [],
    snapshots: [],
    letters: null,
  } satisfies View;

  const serve = async (more: Partial<PageOptions> = {}) => {
    const ended = new AbortController();
    const page = await servePage({
      host: '127.0.0.1',
      port: 0,
      token: undefined,
      look: async () => view,
      letter: async ({ offset }) => (offset === 0 ? { reason: 'integer' } : undefined),
      plots: async () => undefined,
      metrics: async () => ({ type: 'text/plain', text: 'up 1' }),
      logger: createLogger('silent'),
      signal: ended.signal,
      ...more,
    });
    const close = async () => {
      ended.abort();
      await page.done;
    };
    return { url: new URL(page.url), close };
  };

  test('tells a supervisor without a token or a known name that it is alive, and ends while an observation waits', async () => {
    const { url, close } = await serve({ token: 'secret', look: () => new Promise(() => undefined) });
    const answer = await fetch(new URL('/healthz', url.origin));
    expect([answer.status, await answer.json()]).toEqual([200, { isHealthy: true }]);
    expect((await fetch(new URL('/', url.origin))).status).toBe(401);
    // The observation above never ends.
    await close();
  });
  const status = async (url: URL, path: string, init: RequestInit = {}) =>
    (await fetch(new URL(path, url), { redirect: 'manual', ...init })).status;

  test('every answer forbids scripts and frames from elsewhere, and there is no inline script', async () => {
    const { url, close } = await serve();
    for (const path of ['/', '/page.js', '/none', '/letter?at=x']) {
      const response = await fetch(new URL(path, url));
      const policy = response.headers.get('content-security-policy') ?? '';
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain('unsafe');
      expect(response.headers.get('x-content-type-options')).toBe('nosniff');
      await response.text();
    }
    const html = await (await fetch(url)).text();
    expect(html).not.toMatch(/<script(?![^>]*src=)|\son\w+=|style=|https?:/);
    await close();
  });

  test('only GET requests for known paths are answered', async () => {
    const { url, close } = await serve();
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH'])
      expect(await status(url, '/', { method })).toBe(405);
    expect(await status(url, '/../package.json')).toBe(404);
    expect(await status(url, '/%2e%2e/package.json')).toBe(404);
    expect(await status(url, '/letter?at=0:0')).toBe(200);
    expect(await status(url, '/letter?at=0:1')).toBe(404);
    expect(await status(url, '/letter?at=0:-1')).toBe(400);
    expect(await status(url, '/plots?snapshot=../..')).toBe(404);
    await close();
  });

  test('views arrive as events, and so does a failed look', async () => {
    let looks = 0;
    const { url, close } = await serve({
      look: async () => {
        looks += 1;
        if (looks > 1) throw new Error('of the test');
        return view;
      },
    });
    const response = await fetch(new URL('/events', url));
    let text = '';
    for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += Buffer.from(part).toString();
      if (text.includes('event: failure')) break;
    }
    expect(text).toContain(`event: view\ndata: ${JSON.stringify(view)}\n\n`);
    expect(text).toContain('event: failure\ndata: {"text":"of the test"}');
    await close();
  });

  test('no more than fifty look at the same time', async () => {
    const { url, close } = await serve();
    const leave = new AbortController();
    const look = () => fetch(new URL('/events', url), { signal: leave.signal });
    const viewers = await Promise.all(Array.from({ length: 50 }, look));
    expect(new Set(viewers.map((response) => response.status))).toEqual(new Set([200]));
    expect(await status(url, '/events')).toBe(503);
    leave.abort();
    await close();
  });

  test('a web page elsewhere that takes our address for its name is not answered', async () => {
    const { url, close } = await serve();
    const sent = request(url, { headers: { host: 'evil.example' } }).end();
    const [response] = await once(sent, 'response');
    response.resume();
    expect(response.statusCode).toBe(421);
    await close();
  });

  test('other hosts get no answer without the token', async () => {
    await expect(serve({ host: '0.0.0.0' })).rejects.toMatchObject({ kind: 'usage' });
    const { url, close } = await serve({ host: '0.0.0.0', token: 'of a test' });
    for (const path of ['/', '/page.js', '/events', '/metrics', '/letter?at=0:0', '/?token=wrong'])
      expect(await status(url, path)).toBe(401);
    expect(await status(url, '/', { headers: { authorization: 'Bearer of a tesT' } })).toBe(401);
    expect(await status(url, '/', { headers: { authorization: 'Bearer of a test' } })).toBe(200);
    const first = await fetch(url, { redirect: 'manual' });
    expect(first.status).toBe(303);
    expect(first.headers.get('location')).toBe('/');
    const cookie = first.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/HttpOnly; SameSite=Strict/);
    expect(cookie).not.toContain('of a test');
    expect(await status(url, '/', { headers: { cookie: cookie.split(';')[0] ?? '' } })).toBe(200);
    await close();
  });

  test('a port that is taken is said', async ({ place }) => {
    const { url, close } = await serve();
    const finished = await place.run(['monitor', '--listen', url.port]);
    expect(finished.code).toBe(2);
    expect(spoken(finished)).toContain('cannot be listened on');
    await close();
  });
});

describe('problems in words', () => {
  const line = (group: Partial<StageLine['group']>, members: number | null = 1): StageLine => ({
    name: 'processors',
    history: null,
    group: {
      group: 'g',
      exists: true,
      members,
      problem: null,
      isRefused: false,
      state: 'OK',
      whyUnknown: null,
      lag: 0,
      lagUnknown: 0,
      lagRecords: 0,
      lost: 0,
      blocked: 0,
      timeLagMs: 0,
      expiresMs: null,
      consumedPerSecond: 0,
      producedPerSecond: 0,
      catchUpMs: 0,
      catchesUp: true,
      ...group,
    },
  });
  const other = (stage: StageLine): StageLine => ({ ...stage, name: 'other' });
  const lag = 'reelflow lag --watch --namespace n';
  const start = 'reelflow process --namespace n';
  const ofGroup = 'reelflow lag --group g --watch';

  test.for([
    [line({}), []],
    [line({ state: null, lag: 5 }), []],
    [line({}, 0), [['note', 'No processor is running; no messages wait.', start]]],
    [
      { ...line({ exists: false, lag: null }, 0), history: 'never-started' },
      [['note', 'No processor is running; its lag is unknown (the stage has never been started).', start]],
    ],
    [
      { ...line({ state: 'STOP', lag: 1 }, 0), history: 'ended-here' },
      [
        [
          'bad',
          'Processors have stopped: no member is running, and 1 message waits (the stage was started here and has ended).',
          start,
        ],
      ],
    ],
    [
      line({ state: 'STALL', lag: 1_200 }),
      [
        [
          'bad',
          'Processors are stalled: a member is assigned but makes no progress, and 1,200 messages wait.',
          lag,
        ],
      ],
    ],
    [
      line({ state: 'WARN', lag: null }),
      [['bad', 'Processors are too slow: the lag is unknown, and the lag does not decrease.', start]],
    ],
    [
      line({ state: 'ERR' }),
      [['bad', 'Processors went back, or a topic ends before the committed offset.', lag]],
    ],
    [
      line({ state: 'LOST', lost: 3 }),
      [['bad', 'Processors have lost 3 messages: the broker deleted them before they were read.', lag]],
    ],
    [
      other(line({ state: 'STALL', lag: 3 })),
      [
        [
          'bad',
          'Group g is stalled: a member is assigned but makes no progress, and 3 messages wait.',
          ofGroup,
        ],
      ],
    ],
    [
      other(line({ state: 'OK', expiresMs: 90_000, blocked: 2 })),
      [
        ['bad', 'The oldest unread message of g expires in 2 minutes.', ofGroup],
        ['note', 'An open transaction withholds 2 messages from g.', 'kafka-transactions.sh find-hanging'],
      ],
    ],
    [
      other(line({ state: null, problem: 'not allowed' }, null)),
      [['bad', 'Group g could not be read: not allowed', ofGroup]],
    ],
    [
      other(line({ exists: false, state: null }, 0)),
      [['note', 'Group g does not exist (yet).', 'reelflow lag --group "*"']],
    ],
    [other(line({}, 0)), [['note', 'No member of group g is running; no messages wait.', ofGroup]]],
  ] as const)('%#', ([stage, expected]) => {
    const problems = expected.map(([severity, text, command]) => ({ severity, text, command }));
    expect(problemsOf(stage, ' --namespace n')).toEqual(problems);
  });

  test('the verdict calls a pipeline healthy only if both stages run and are OK', () => {
    const processors = line({});
    const sink = (members: number): StageLine => ({ ...line({}, members), name: 'sink' });
    const textOf = (...stages: StageLine[]) =>
      verdictOf(
        stages.flatMap((stage) => problemsOf(stage, '')),
        stages,
      ).text;
    expect(textOf(processors, sink(1))).toBe('The pipeline is healthy.');
    expect(textOf(processors, sink(1), other(line({}, 0)))).toBe('The pipeline is healthy.');
    expect(textOf(line({}, 0), sink(0))).toBe('The pipeline is not running.');
    expect(textOf(processors, sink(0))).toBe('No failure is known so far.');
    expect(textOf(processors, { ...line({ state: null }), name: 'sink' })).toBe(
      'No failure is known so far.',
    );
    expect(textOf()).toBe('No failure is known so far.');
    expect(verdictOf([], null).text).toBe('No failure is known so far.');
    expect(verdictOf([], null).severity).toBe('note');
  });
});
