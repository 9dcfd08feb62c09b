/**
 * The refresh protocol under seeded schedules: after whatever happened, one undisturbed replay leaves exactly its dump, and
 * the same dump again sends nothing. Each clause of the protocol that is taken out is noticed.
 * `SIMULATOR_SEED` and `SIMULATOR_SCHEDULES` run other schedules than the usual ones.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { refreshMutants } from './refresh-mutants.ts';
import { simulateRefresh } from './refresh-simulator.ts';

const usualSeed = 20_261_126;
const schedules = Number(process.env.SIMULATOR_SCHEDULES ?? 3_000);
const randomSeed = Number(process.env.SIMULATOR_SEED ?? Math.floor(Math.random() * 2 ** 30));

test.each([
  ['the usual', usualSeed],
  ['a random', randomSeed],
])('an undisturbed replay leaves exactly its dump, whatever came before: %s seed, %i', async (_, seed) => {
  expect(await simulateRefresh(seed, schedules)).toBeUndefined();
  expect(await simulateRefresh(seed, schedules, true)).toBeUndefined();
});

/**
 * One schedule in some hundred thousand: a broker loses a tail, others write what they had written before, and at the
 * offset of the last message a copy of it arrives.
 */
test('a tail that is refilled with the same bytes is not the tail that was lost', async () => {
  expect(await simulateRefresh(892_422_092, 1, true)).toBeUndefined();
});

test('the simulator detects each missing clause of the protocol', async () => {
  const program = fileURLToPath(new URL('./refresh-mutants.ts', import.meta.url));
  const child = spawn(process.execPath, [program, '1'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' },
  });
  let errors = '';
  child.stderr.on('data', (data) => {
    errors += data;
  });
  const closed = new Promise((resolve) => child.on('close', resolve));
  const verdicts: { name: string; schedules: number | null }[] = [];
  for await (const line of createInterface({ input: child.stdout })) verdicts.push(JSON.parse(line));
  expect([await closed, errors]).toEqual([0, '']);
  expect(verdicts).toHaveLength(refreshMutants.length);
  expect(verdicts.filter(({ schedules: noticed }) => noticed === null)).toEqual([]);
});
