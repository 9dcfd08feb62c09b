/**
 * The page about a snapshot, made by the real pipeline and looked at in a real browser that is offline: on a wide light
 * screen and on a narrow dark one. `UPDATE_DOCS=1` keeps what was seen in docs/.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exitCodes } from '../../../runtime/errors.ts';
import { GoldReader, type Point } from '../../../sinks/gold/gold-reader.ts';
import type { Manifest } from '../../../sinks/gold/manifest.ts';
import type { Plot } from '../../../tables/gold-table.ts';
import { goldTables } from '../../../tables/gold-tables.ts';
import { hasBrowser, openBrowser, whyNoBrowser } from '../../support/browser.ts';
import { Place, smallDataset, textOf, writeDatasets } from '../../support/harness.ts';

const docs = fileURLToPath(new URL('../../../docs', import.meta.url));
const hostile = '<script>document.title = "taken"</script>&amp;';

let place: Place;
let first: Manifest;
let second: Manifest;
let file: string;

beforeAll(async () => {
  place = new Place();
  const data = await smallDataset(join(place.folder, 'data'), 600, 3);
  first = await place.pipeline(data);
  const edit = (dataset: 'title.ratings' | 'name.basics', change: (columns: string[], i: number) => void) =>
    textOf(data, dataset)
      .trimEnd()
      .split('\n')
      .map((line, i) => {
        const columns = line.split('\t');
        if (i > 0) change(columns, i);
        return columns.join('\t');
      })
      .join('\n');
  const ratings = edit('title.ratings', (columns, i) => {
    if (i % 3 === 0) columns[2] = String(Number(columns[2]) * 2);
  });
  const names = edit('name.basics', (columns) => {
    columns[1] = `${hostile} ${columns[1]}`;
  });
  const basics = textOf(data, 'title.basics');
  const newer = { 'title.basics': basics, 'title.ratings': `${ratings}\n`, 'name.basics': `${names}\n` };
  second = await place.pipeline(writeDatasets(join(place.folder, 'newer'), newer), {
    replay: ['--upsert'],
  });
  file = join(place.folder, 'report.html');
  const finished = await place.run(['gold', 'report', '--gold', place.gold, '--out', file]);
  expect(finished, finished.stderr).toMatchObject({ code: 0, stdout: `${file}\n` });
}, 240_000);

afterAll(() => place.close(false));

it('is self-contained: no script, and nothing that a browser would fetch', () => {
  const page = readFileSync(file, 'utf8');
  expect(page).toContain("default-src 'none'");
  expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|url\((?!#)|\ssrc=|\shref=/i);
  // Names of namespaces in SVG are not requests.
  expect(page.replaceAll(/http:\/\/www\.w3\.org\/[\w/]+/g, '')).not.toMatch(/https?:\/\//);
});

it('of the first snapshot says that there is no previous one', async () => {
  const finished = await place.run(['gold', 'report', '--gold', place.gold, '--at', first.id]);
  expect(finished, finished.stderr).toMatchObject({ code: 0, stdout: `reelflow-${first.id}.html\n` });
  const page = readFileSync(join(place.folder, `reelflow-${first.id}.html`), 'utf8');
  expect(page).toContain('There is no previous snapshot');
  expect(page).not.toContain('id="changes"');
});

it('that cannot be written names its path', async () => {
  const finished = await place.run(['gold', 'report', '--gold', place.gold, '--out', '/nowhere/page.html']);
  expect(finished).toMatchObject({ code: exitCodes.usage });
  expect(finished.stderr).toContain('/nowhere/page.html');
});

describe.skipIf(!hasBrowser)(`in a browser${whyNoBrowser}`, () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await openBrowser();
  }, 120_000);
  afterAll(() => browser?.close());

  /** Luminance of a CSS colour of the page, 0 to 1. */
  async function luminance(page: Page, property: 'color' | 'backgroundColor'): Promise<number> {
    const color = await page.evaluate<string>(`getComputedStyle(document.body).${property}`);
    const [r = 0, g = 0, b = 0] = color.match(/[\d.]+/g)?.map(Number) ?? [];
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
  }

  async function look(screen: 'wide' | 'narrow', work: (page: Page) => Promise<void>): Promise<void> {
    const isWide = screen === 'wide';
    const context = await browser.newContext({
      viewport: isWide ? { width: 800, height: 900 } : { width: 390, height: 844 },
      colorScheme: isWide ? 'light' : 'dark',
      offline: true,
    });
    const page = await context.newPage();
    const requests: string[] = [];
    const complaints: string[] = [];
    page.on('request', (request) => requests.push(request.url()));
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    const url = pathToFileURL(file).href;
    await page.goto(url);
    await work(page);
    expect(requests).toEqual([url]);
    expect(complaints).toEqual([]);
    await context.close();
  }

  const points = (id: string, table: string, plot: Plot, like?: readonly Point[]) =>
    GoldReader.open(place.gold, (reader) => reader.points(id, table, plot, like));

  it.each(['wide', 'narrow'] as const)('shows every plot once, inside a %s screen', async (screen) => {
    await look(screen, async (page) => {
      const { width } = page.viewportSize() ?? { width: 0 };
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
      for (const { name, plots } of goldTables) {
        for (const plot of plots) {
          const { title } = plot;
          if ((await points(second.id, name, plot)).length === 0) {
            const empty = page.locator(`#${name} figure:has(figcaption:text-is("${title}")) p`);
            expect(await empty.textContent(), title).toBe('No rows.');
            continue;
          }
          const drawings = page.locator(`#${name} figure:has(figcaption:text-is("${title}")) svg:visible`);
          expect(await drawings.count(), title).toBe(1);
          const box = await drawings.boundingBox();
          expect(box?.x, title).toBeGreaterThanOrEqual(0);
          expect((box?.x ?? 0) + (box?.width ?? 0), title).toBeLessThanOrEqual(width);
          expect(box?.height, title).toBeGreaterThan(60);
        }
      }
      const [text, ground] = [await luminance(page, 'color'), await luminance(page, 'backgroundColor')];
      if (screen === 'wide') expect([text < 0.2, ground > 0.9]).toEqual([true, true]);
      else expect([text > 0.8, ground < 0.15]).toEqual([true, true]);
      if (process.env.UPDATE_DOCS) {
        mkdirSync(docs, { recursive: true });
        const path = join(docs, `gold-report-${screen}.jpg`);
        const clip = { x: 0, y: 0, width, height: 1_500 };
        await page.screenshot({ path, clip, fullPage: true, type: 'jpeg', quality: 70 });
      }
    });
  });

  it('draws a bar and its figure for each point, and a mark for each point of the previous snapshot', async () => {
    await look('wide', async (page) => {
      for (const { name, plots } of goldTables) {
        for (const plot of plots.filter(({ kind }) => kind === 'bar')) {
          const now = await points(second.id, name, plot);
          if (now.length === 0) continue;
          const then = await points(first.id, name, plot, now);
          const svg = page.locator(`#${name} figure:has(figcaption:text-is("${plot.title}")) svg:visible`);
          const lengths = await svg
            .locator('[aria-label="bar"] rect')
            .evaluateAll((bars) => bars.map((bar) => Number(bar.getAttribute('width'))));
          expect(lengths, plot.title).toHaveLength(now.length);
          const scale = (lengths[0] as number) / (now[0]?.[1] as number);
          now.forEach(([label, y], i) => {
            expect(lengths[i], String(label)).toBeCloseTo(y * scale, 3);
          });
          const figures = await svg.locator('[aria-label="text"] text').allTextContents();
          expect(figures).toEqual(
            now.map(([, y]) => y.toLocaleString('en-US', { maximumFractionDigits: 2 })),
          );
          expect(await svg.locator('[aria-label="tick"] line').count(), plot.title).toBe(then.length);
        }
      }
    });
  });

  it('lists the changes, and shows hostile names as text', async () => {
    await look('wide', async (page) => {
      const changes = page.locator('#changes');
      expect(await changes.locator('h2').textContent()).toBe(`Since ${first.id}`);
      const diff = await GoldReader.open(place.gold, (reader) => reader.diff(first.id, second.id, 1));
      const rows = await changes.locator('tbody tr').allTextContents();
      expect(rows).toHaveLength(goldTables.length);
      const people = diff.tables.contributor_analysis;
      expect(people?.changed).toBeGreaterThan(0);
      const shown = await changes.locator('tr:has(td:text-is("contributor_analysis")) td').allTextContents();
      expect(shown.at(-1)).toBe(people?.changed.toLocaleString('en-US'));
      expect(await changes.textContent()).toContain(`→ ${hostile}`);
      expect(await page.title()).toBe(`Gold ${second.id}`);
      expect(await page.locator('script').count()).toBe(0);
    });
  });
});
