/**
 * A snapshot as one HTML page: a chart for every plot of the gold tables, compared with the previous snapshot, the first rows
 * of each table, and the changes. The page has no script, loads nothing from the network, follows the light or dark mode of
 * the browser, and fits a phone: every chart is drawn for two widths, and the page shows the one that fits.
 */

import * as Plots from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { counted } from '../../runtime/counted.ts';
import type { ColumnNote } from '../../tables/column-notes.ts';
import type { GoldTable, Plot } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { recordsOf } from '../../topics/record-counts.ts';
import {
  type Cell,
  GoldReader,
  type Point,
  type SnapshotDiff,
  type TableView,
  type ViewColumn,
} from './gold-reader.ts';
import { listSnapshots, type Manifest, readManifest } from './manifest.ts';

const rowsShown = 10;
const changesShown = 5;
/** In CSS pixels. */
const widths = { wide: 680, narrow: 340 } as const;
/** A label takes at most this part of the width. */
const labelPart = 0.42;
const letterWidth = 6.8;

/**
 * The page about a snapshot.
 * @throws ReelflowError goldUnusable, if a file of it or of the previous snapshot is missing or was altered
 */
export async function reportPage(
  gold: string,
  id: string,
  tables: readonly GoldTable[] = goldTables,
): Promise<string> {
  const manifest = readManifest(gold, id);
  const before = listSnapshots(gold).findLast((other) => other < id);
  return GoldReader.open(
    gold,
    async (reader) => {
      const diff = before === undefined ? undefined : await reader.diff(before, id, changesShown);
      const sections: string[] = [];
      for (const { name, plots } of tables.filter(({ name }) => name in manifest.tables)) {
        const figures: string[] = [];
        for (const plot of plots) {
          const now = await reader.points(id, name, plot);
          const hasBefore = (diff?.tables[name]?.rows[0] ?? null) !== null;
          const then = hasBefore ? await reader.points(before as string, name, plot, now) : [];
          figures.push(figureOf(plot, now, then));
        }
        sections.push(sectionOf(await reader.rows(id, name, rowsShown), figures));
      }
      return pageOf(manifest, before, diff === undefined ? '' : changesOf(diff), sections);
    },
    tables,
  );
}

function pageOf(manifest: Manifest, before: string | undefined, changes: string, sections: string[]): string {
  const { id, created, tables, accounting, versions } = manifest;
  const total = Object.values(accounting).reduce((sum, counts) => sum + recordsOf(counts), 0);
  const input = Object.entries(accounting).map(([topic, of]) => [
    topic,
    ...[recordsOf(of), of.applied, of.duplicate, of.rejected].map(whole),
  ]);
  const files = Object.entries(tables).map(([name, of]) => [
    name,
    whole(of.rows),
    whole(of.bytes),
    of.contentHash,
  ]);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Gold ${safe(id)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>Gold ${safe(id)}</h1>
<p>Created ${safe(created.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'))} from ${counted(total, 'record')}.
${before === undefined ? 'There is no previous snapshot.' : `<span class="then">The thin mark</span> is the previous snapshot, ${safe(before)}.`}</p>
</header>
<main>
${sections.join('\n')}
${changes}
<section>
<h2>Input and files</h2>
${tableOf(['topic', 'records', 'applied', 'duplicate', 'rejected'], input)}
${tableOf(['table', 'rows', 'bytes', 'content hash'], files)}
<p>reelflow ${safe(versions.reelflow)}, DuckDB ${safe(versions.duckdb)}. <code>reelflow verify ${safe(id)}</code> recomputes it.</p>
</section>
</main>
</body>
</html>
`;
}

function sectionOf(
  { table, about, columns, rows, rowsTotal }: TableView,
  figures: readonly string[],
): string {
  const head = columns.map(({ name, unit }) => (unit === undefined ? name : `${name}, ${unit}`));
  const cells = rows.map((row) => row.map((cell, c) => cellText(cell, columns[c])));
  return `<section id="${safe(table)}">
<h2>${safe(table)}</h2>
<p>${safe(about)}</p>
${figures.join('\n')}
<details><summary>First ${rows.length} of ${counted(rowsTotal, 'row')}</summary>
${tableOf(head, cells)}
<dl>${columns.map(definitionOf).join('')}</dl>
</details>
</section>`;
}

const definitionOf = ({ name, about }: { name: string } & ColumnNote) =>
  `<dt><code>${safe(name)}</code></dt><dd>${safe(about)}</dd>`;

function changesOf({ from, tables }: SnapshotDiff): string {
  const counts = Object.entries(tables).map(([name, { rows, added, removed, changed }]) => [
    name,
    ...rows.map((n) => (n === null ? 'no table' : whole(n))),
    ...[added, removed, changed].map(whole),
  ]);
  const lines = Object.entries(tables).flatMap(([name, { first, added, removed, changed }]) => {
    const texts = first.map(({ kind, key, columns }) => {
      const figures = Object.entries(columns).map(
        ([column, [b, a]]) => `${column} ${cellText(b)} → ${cellText(a)}`,
      );
      return `${key}: ${kind === 'changed' ? figures.join(', ') : kind}`;
    });
    const left = added + removed + changed - first.length;
    if (left > 0) texts.push(`and ${whole(left)} more`);
    return texts.length === 0
      ? []
      : [`<h3>${safe(name)}</h3><ul>${texts.map((text) => `<li>${safe(text)}</li>`).join('')}</ul>`];
  });
  return `<section id="changes">
<h2>Since ${safe(from)}</h2>
${tableOf(['table', 'rows before', 'rows now', 'added', 'removed', 'changed'], counts)}
${lines.join('\n')}
</section>`;
}

/** A table whose first column is text. It scrolls if it is too wide. */
function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const row = (tag: string, cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${safe(cell)}</${tag}>`).join('')}</tr>`;
  return `<div class="scroll" tabindex="0"><table><thead>${row('th', head)}</thead><tbody>${rows.map((cells) => row('td', cells)).join('')}</tbody></table></div>`;
}

const tickText = (value: number | Date) =>
  value instanceof Date ? value.toISOString().slice(0, 10) : String(value);

/** A plot in two widths. @param then the points of the previous snapshot */
function figureOf(plot: Plot, now: readonly Point[], then: readonly Point[]): string {
  if (now.length === 0) return `<figure><figcaption>${safe(plot.title)}</figcaption><p>No rows.</p></figure>`;
  const drawings = Object.entries(widths).map(
    ([name, width]) => `<div class="${name}">${draw(plot, now, then, width)}</div>`,
  );
  return `<figure><figcaption>${safe(plot.title)}</figcaption>${drawings.join('')}</figure>`;
}

function draw(plot: Plot, now: readonly Point[], then: readonly Point[], width: number): string {
  const { document } = parseHTML('<html><body></body></html>');
  const shared = { document, width, ariaLabel: plot.title, style: { background: 'none' } };
  const [x, y] = [
    ([at]: Point) => (plot.kind === 'line' && typeof at === 'string' ? new Date(at) : at),
    ([, height]: Point) => height,
  ];
  if (plot.kind === 'line') {
    const axis = { tickFormat: tickText, ticks: width / 85, label: null };
    return Plots.plot({
      ...shared,
      height: Math.min(300, width * 0.6),
      x: axis,
      y: { label: null, grid: true, nice: true, tickFormat: figure },
      marks: [
        Plots.lineY(then, { x, y, stroke: 'var(--then)', strokeDasharray: '4 3' }),
        Plots.lineY(now, {
          x,
          y,
          stroke: 'var(--now)',
          strokeWidth: 2,
          marker: now.length > 30 ? 'none' : 'dot',
        }),
      ],
    }).outerHTML;
  }
  const longest = Math.max(...now.map(([label]) => String(label).length));
  const marginLeft = Math.min(width * labelPart, longest * letterWidth + 16);
  const lettersMax = Math.floor((marginLeft - 12) / letterWidth);
  const cut = (label: string) => (label.length > lettersMax ? `${label.slice(0, lettersMax - 1)}…` : label);
  return Plots.plot({
    ...shared,
    marginLeft,
    marginRight: 56,
    height: now.length * 22 + 24,
    x: { axis: null, domain: [0, Math.max(1, ...[...now, ...then].map(y))] },
    y: { label: null, tickSize: 0, domain: now.map(x), tickFormat: cut },
    marks: [
      Plots.barX(now, { x: y, y: x, fill: 'var(--now)', insetTop: 1, insetBottom: 1 }),
      Plots.tickX(then, { x: y, y: x, stroke: 'var(--then)', strokeWidth: 2 }),
      Plots.text(now, { x: y, y: x, text: ([, n]: Point) => figure(n), textAnchor: 'start', dx: 5 }),
    ],
  }).outerHTML;
}

const whole = (n: number) => n.toLocaleString('en-US');
const figure = (n: number) => n.toLocaleString('en-US', { maximumFractionDigits: 2 });

function cellText(cell: Cell | undefined, column?: ViewColumn): string {
  if (cell === null || cell === undefined) return '';
  if (Array.isArray(cell)) return cell.map((inner) => cellText(inner)).join(', ');
  if (typeof cell !== 'number') return String(cell);
  return column?.unit === 'year' ? String(Math.round(cell * 10) / 10) : figure(cell);
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const safe = (text: string) => text.replaceAll(/[&<>"]/g, (mark) => entities[mark] as string);

const style = `
:root { color-scheme: light dark; --now: light-dark(#2f6f9f, #6fb3e0); --then: light-dark(#b3541e, #f0a56b);
  --line: light-dark(#d8d8d4, #3a3d40); --quiet: light-dark(#5c5f62, #a6a9ac); }
body { margin: 0 auto; max-width: 720px; padding: 1rem; font: 16px/1.5 system-ui, sans-serif;
  background: light-dark(#fdfdfb, #17191b); color: light-dark(#1d1f21, #e6e6e3); }
h1 { font-size: 1.4rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.25rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: 0; }
p, dd, summary, header p { color: var(--quiet); }
.then { color: var(--then); font-weight: 600; }
figure { margin: 1rem 0; }
figcaption { font-weight: 600; }
svg { font-size: 11px; overflow: visible; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
li { overflow-wrap: anywhere; font-size: 0.85rem; }
dd { margin: 0 0 0.4rem 1rem; font-size: 0.85rem; }
.narrow { display: none; }
@media (max-width: 711px) { .wide { display: none; } .narrow { display: block; } .narrow svg { width: 100%; } }
`;
