/** Plots for a terminal: bars, and a line over numbers. */
import type { Point } from '../sinks/gold/gold-reader.ts';
import type { Plot } from '../tables/gold-table.ts';
import { dayText } from '../topics/day.ts';
import { figure } from './figures.ts';

const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const labelMax = 32;
const lineHeight = 12;
const xTicksMax = 8;
const dayMs = 86_400_000;

/** @param width columns of the terminal. @returns lines, '' when there is nothing to draw */
export async function drawPlot(plot: Plot, points: readonly Point[], width: number): Promise<string> {
  if (points.length === 0) return '';
  const picture = plot.kind === 'bar' ? bars(points, width) : await line(points, width);
  return `${plot.title}\n${picture}`;
}

function bars(points: readonly Point[], width: number): string {
  const labels = points.map(([x]) => cut(String(x)));
  const figures = points.map(([, y]) => figure(y));
  const labelWidth = Math.max(...labels.map((label) => label.length));
  const room = Math.max(8, width - labelWidth - Math.max(...figures.map((text) => text.length)) - 3);
  const highest = Math.max(...points.map(([, y]) => y));
  return points
    .map(([, y], i) => {
      const cells = highest > 0 ? Math.max(0, y / highest) * room : 0;
      const bar = '█'.repeat(Math.floor(cells)) + eighths[Math.floor((cells % 1) * 8)];
      return `${labels[i]?.padStart(labelWidth)} ${bar} ${figures[i]}`;
    })
    .join('\n');
}

const cut = (text: string) => (text.length > labelMax ? `${text.slice(0, labelMax - 1)}…` : text);

async function line(points: readonly Point[], width: number): Promise<string> {
  const { default: draw } = await import('simple-ascii-chart');
  const isDate = points.some(([x]) => typeof x === 'string');
  const coordinates = points.map(([x, y]): [number, number] => [
    typeof x === 'string' ? Date.parse(x) / dayMs : x,
    y,
  ]);
  const [xs, ys] = [coordinates.map(([x]) => x), coordinates.map(([, y]) => y)];
  const [lowest, highest] = [Math.min(...ys), Math.max(...ys)];
  // Whole figures have whole ticks, if there are enough of them.
  const isWhole = ys.every(Number.isInteger) && highest - lowest >= 3;
  return draw(coordinates, {
    width: Math.max(20, width - 16),
    height: lineHeight,
    customXAxisTicks: xs.filter((_, i) => i % Math.ceil(xs.length / xTicksMax) === 0),
    customYAxisTicks: [0, 1, 2, 3].map((step) => {
      const tick = lowest + ((highest - lowest) * step) / 3;
      return isWhole ? Math.round(tick) : tick;
    }),
    formatter: (value, { axis }) =>
      axis === 'x' ? (isDate ? dayText(value) : String(Math.round(value))) : figure(value),
  }).trimEnd();
}
