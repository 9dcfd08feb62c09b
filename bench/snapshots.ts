/** What a snapshot takes when little has changed, and what the sink takes when nothing comes. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, createWriteStream, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Context } from '../cli/context.ts';
import { stageFlags } from '../cli/member.ts';
import type { CommonFlags } from '../cli/options.ts';
import { environmentOf } from '../runtime/config.ts';
import { Watch } from './measure.ts';
import { withOtherYear } from './refresh.ts';
import { program, stage, wholePipeline } from './stages.ts';

/** CPU seconds of `sink --once`, each in a process of its own. */
export interface SnapshotRun {
  readonly titles: number;
  readonly nothing: number;
  readonly afterChange: number;
  readonly whole: number;
  /** CPU seconds a second of a sink that publishes once a minute and has nothing to do. */
  readonly idle: number;
}

const idleSeconds = 125;

/** Writes 1 % of the titles, with another year. @returns how many */
async function changedTitles(data: string, file: string): Promise<number> {
  const out = createWriteStream(file);
  let [line, titles] = [0, 0];
  for await (const row of createInterface({ input: createReadStream(join(data, 'title.basics.tsv')) })) {
    if (line++ % 100 > 0) continue;
    out.write(`${line > 1 ? withOtherYear(row) : row}\n`);
    if (line > 1) titles += 1;
  }
  out.end();
  await finished(out);
  return titles;
}

export async function snapshotRun(options: {
  context: Context;
  places: CommonFlags;
  folder: string;
  data: string;
  only: readonly string[];
  shards: number;
  signal: AbortSignal;
}): Promise<SnapshotRun> {
  const { context, places, folder, data, only, shards, signal } = options;
  await wholePipeline({ context, data, folder, shards, only, signal });
  const run = async (name: 'replay' | 'process' | 'sink', ...more: string[]) =>
    (await stage(name, context, places, more, { logs: folder, signal })).cpuSeconds;
  const nothing = await run('sink', '--once', ...only);
  const changed = join(folder, 'title.basics.tsv');
  const titles = await changedTitles(data, changed);
  await run('replay', changed, '--upsert');
  await run('process', '--until-caught-up', ...only);
  const afterChange = await run('sink', '--once', ...only);
  // Without its snapshots, the sink publishes its state as a whole.
  rmSync(places.gold, { recursive: true });
  const whole = await run('sink', '--once', ...only);
  return { titles, nothing, afterChange, whole, idle: await idleSink(context, places, only, signal) };
}

async function idleSink(
  { endpoints }: Context,
  { gold, state, namespace }: CommonFlags,
  only: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const where = ['--gold', gold, '--state', state, '--namespace', namespace];
  const sink = spawn(
    process.execPath,
    [...stageFlags, program, 'sink', ...where, '--interval', '60s', ...only],
    {
      stdio: 'ignore',
      env: { ...process.env, ...environmentOf(endpoints) },
      signal,
    },
  );
  await sleep(10_000);
  const watch = new Watch(sink.pid as number);
  await sleep(idleSeconds * 1_000);
  watch.stop();
  sink.kill();
  await once(sink, 'exit');
  return watch.cpuSeconds() / idleSeconds;
}
