/** Gold without a broker: a sink's store that a test fills, whose snapshots differ by one title each. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { CubeStore } from '../../sinks/cube-store.ts';
import { Lake, type LakePlace } from '../../sinks/gold/lake.ts';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import { stayingSnapshots } from '../../sinks/gold/retention.ts';
import { publishSnapshot } from '../../sinks/gold/snapshot.ts';
import { nullInt } from '../../topics/row-plan.ts';
import { cubeNamed, rowOf } from './cube-rows.ts';
import { temporaryFolder } from './temporary-folder.ts';

export const labIdentity = { clusterId: 'cluster', namespace: '' };

export const openCubes = (folder: string) => CubeStore.open(folder, labIdentity, '500MB');

/** Publishes what a store holds. */
export function publishCubes(
  store: CubeStore,
  gold: string,
  more: Partial<Parameters<typeof publishSnapshot>[1]> = {},
): Promise<Manifest> {
  const source = { schemas: {}, peopleTopic: 'names', historyDays: 400, reelflowVersion: '0' };
  return publishSnapshot(store, { gold, ...labIdentity, ...source, ...more });
}

const sources = join(import.meta.dirname, '..', '..', 'sinks', 'gold');

export class GoldLab {
  readonly folder: string;
  readonly store: CubeStore;
  gold: string;
  titles = 0;

  private constructor(folder: string, store: CubeStore) {
    this.folder = folder;
    this.store = store;
    this.gold = join(folder, 'gold');
  }

  static async open(): Promise<GoldLab> {
    const folder = temporaryFolder();
    return new GoldLab(folder, await openCubes(join(folder, 'state')));
  }

  close(): void {
    this.store.close();
  }

  async addTitle(year: number): Promise<void> {
    const rows = rowOf(cubeNamed('title'), year, nullInt, 70, 1, 100, 90, 1);
    await this.store.transaction(() => this.store.addCubeRows(0, rows));
  }

  /** Publishes a snapshot with one title more than the one before, in a decade of its own. */
  async publish(): Promise<Manifest> {
    this.titles += 1;
    await this.addTitle(1800 + this.titles * 10);
    return this.store.onAllThreads(() => publishCubes(this.store, this.gold));
  }

  lake(place: LakePlace): Lake {
    return new Lake(place, { gold: this.gold, ...labIdentity });
  }

  /** Makes the lake show the snapshots that retention would leave. */
  show(place: LakePlace, keep = 10) {
    return this.lake(place).show(stayingSnapshots(this.gold, { newest: keep }));
  }

  /** Runs `show` in a process of its own, which is killed at a crash point or after so many milliseconds. */
  async showKilled(place: LakePlace, at: string | number, keep: number): Promise<void> {
    const program = `
      const { Lake } = await import(${JSON.stringify(join(sources, 'lake.ts'))});
      const { stayingSnapshots } = await import(${JSON.stringify(join(sources, 'retention.ts'))});
      process.stdout.write('ready');
      const of = ${JSON.stringify({ gold: this.gold, ...labIdentity })};
      await new Lake(${JSON.stringify(place)}, of).show(stayingSnapshots(of.gold, { newest: ${keep} }));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, ...(typeof at === 'string' && { REELFLOW_CRASH_AT: at }) },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const ended = once(child, 'close');
    if (typeof at === 'number') {
      await once(child.stdout, 'data');
      await sleep(at);
      child.kill('SIGKILL');
    }
    const [, signal] = await ended;
    if (typeof at === 'string') expect(signal, `${at} was not reached`).toBe('SIGKILL');
  }

  /** A copy of a file, for readers that would lock or change it. */
  copyOf(file: string): string {
    const copy = join(this.folder, 'copy');
    cpSync(file, copy);
    return copy;
  }
}
