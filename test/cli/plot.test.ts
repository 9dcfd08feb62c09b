/** Charts on a terminal. */
import { expect, test } from 'vitest';
import { drawPlot } from '../../cli/plot.ts';

const votes = { title: 'Votes', kind: 'line', x: 'day', y: 'votes' } as const;
const drawn = (last: number) =>
  drawPlot(
    votes,
    [
      [1, 140],
      [2, last],
    ],
    60,
  );

test('a line of whole figures has whole ticks, and one of fractions has fractions', async () => {
  expect(await drawn(273)).not.toMatch(/\d\.\d/);
  expect(await drawn(273.5)).toMatch(/229|228\.5/);
});
