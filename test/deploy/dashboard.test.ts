/** The committed Grafana dashboard against its source. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { dashboardFile, dashboardJson } from '../../deploy/grafana/dashboard.ts';

test('the committed dashboard is the generated one: run `npm run dashboard` after a change', () => {
  expect(readFileSync(dashboardFile, 'utf8')).toBe(dashboardJson());
});

test('panels do not overlap and fill whole lines', () => {
  const { panels } = JSON.parse(dashboardJson()) as {
    panels: { id: number; gridPos: { x: number; y: number; w: number; h: number } }[];
  };
  const cells = new Set<string>();
  let area = 0;
  for (const { gridPos } of panels) {
    area += gridPos.w * gridPos.h;
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) cells.add(`${x} ${y}`);
    }
  }
  expect(cells.size).toBe(area);
  expect(area % 24).toBe(0);
});
