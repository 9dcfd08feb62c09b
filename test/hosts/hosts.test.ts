/**
 * Members on several hosts: the broker, three processor members and the sink in five network namespaces, no folder
 * shared but gold. While a dump is replayed one member's host is cut off, its shards go on elsewhere, it is healed, a
 * fourth host joins, and a corrected dump follows. A reader of CURRENT sees no step back, and in the end gold equals the
 * batch computation over the files.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, onTestFailed, test } from 'vitest';
import { generate } from '../../producers/synthetic/synthetic.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { goldDifferences } from '../support/gold-differences.ts';
import { followCurrent } from '../support/gold-reader.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { type Host, Network, spawnOn, whyNoNamespaces } from './network.ts';
import { brokerPort, registryPort } from './services.ts';

const program = fileURLToPath(new URL('../../cli/reelflow.js', import.meta.url));
const services = fileURLToPath(new URL('./services.ts', import.meta.url));
const jars = fileURLToPath(new URL('../../.reelflow/jars', import.meta.url));
const shards = 6;
const patienceMs = 300_000;

const why = whyNoNamespaces();
if (why !== undefined)
  process.stderr.write(`members on several hosts: skipped, no network namespaces here: ${why}\n`);

/** A command on a host, and what it has logged. */
class Command {
  readonly name: string;
  readonly ended: Promise<number | null>;
  readonly child: ChildProcess;
  output = '';
  code: number | null | undefined;

  constructor(name: string, host: Host, args: readonly string[], env: NodeJS.ProcessEnv, cwd: string) {
    this.name = name;
    this.child = spawnOn(host, process.execPath, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.ended = new Promise((resolve) =>
      this.child.once('close', (code) => {
        this.code = code;
        resolve(code);
      }),
    );
  }

  async succeed(): Promise<string> {
    const code = await this.ended;
    expect(code, `${this.name}\n${this.output.slice(-4_000)}`).toBe(0);
    return this.output;
  }

  async stop(): Promise<number | null> {
    if (this.code === undefined) this.child.kill('SIGTERM');
    return this.ended;
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not so in ${patienceMs / 1000} s: ${what}`);
    await delay(100);
  }
}

/** A later dump: every fifth rating is another one. */
function correct(folder: string): void {
  const path = join(folder, 'title.ratings.tsv');
  const [header = '', ...rows] = readFileSync(path, 'utf8').trimEnd().split('\n');
  const changed = rows.map((row, n) => {
    const [title, rating, votes] = row.split('\t');
    return n % 5 === 0 ? [title, rating === '9.9' ? '1.1' : '9.9', Number(votes) + 1].join('\t') : row;
  });
  writeFileSync(path, `${[header, ...changed].join('\n')}\n`);
}

describe.skipIf(why !== undefined)('members on several hosts', () => {
  const folder = temporaryFolder();
  const commands: Command[] = [];
  let network: Network | undefined;

  afterAll(async () => {
    for (const { child, code } of commands) if (code === undefined) child.kill('SIGTERM');
    await Promise.all(commands.map(({ ended }) => ended));
    network?.remove();
  }, 120_000);

  test('one cut off and healed, one added: gold equals the batch computation and never went back', async () => {
    onTestFailed(() => {
      for (const { name, output } of commands) process.stderr.write(`${name}: ${output.slice(-2_500)}\n`);
    });
    network = new Network();
    const [brokerHost, sinkHost] = [network.addHost(), network.addHost()];
    const memberHosts = [network.addHost(), network.addHost(), network.addHost()];
    const env = {
      ...process.env,
      KAFKA_BROKERS: `${brokerHost.address}:${brokerPort}`,
      SCHEMA_REGISTRY_URL: `http://${brokerHost.address}:${registryPort}/apis/ccompat/v7`,
    };
    const gold = join(folder, 'gold');
    const start = (name: string, host: Host, args: readonly string[]) => {
      const cwd = join(folder, name);
      mkdirSync(cwd, { recursive: true });
      const command = new Command(name, host, args, env, cwd);
      commands.push(command);
      return command;
    };
    const reelflow = (name: string, host: Host, command: string, ...more: string[]) =>
      start(name, host, [program, command, '--state', join(folder, name, 'state'), '--gold', gold, ...more]);
    const member = (number: number, host: Host) =>
      reelflow(`member-${number}`, host, 'process', '--window', '250ms', '--shards', String(shards));
    const data = join(folder, 'data');
    const replay = (name: string) =>
      reelflow(name, brokerHost, 'replay', data, '--upsert', '--json', '--shards', String(shards));

    const untilEqual = async (what: string) => {
      const deadline = Date.now() + patienceMs;
      let looked = '';
      for (;;) {
        const id = currentSnapshot(gold) ?? '';
        if (id !== looked) {
          looked = id;
          const found = await goldDifferences(gold, data);
          if (found.length === 0) return;
          if (Date.now() > deadline) expect(found, what).toEqual([]);
        } else if (Date.now() > deadline) throw new Error(`${what}: ${id} is the last snapshot`);
        await delay(500);
      }
    };

    await generate({ titles: 40_000, seed: 8, out: data });
    const services_ = start('services', brokerHost, [
      services,
      join(folder, 'services'),
      jars,
      brokerHost.address,
    ]);
    await until('broker and registry are up', () => {
      if (services_.code !== undefined) throw new Error(services_.output);
      return services_.output.includes('ready');
    });

    const members = memberHosts.map((host, n) => member(n + 1, host));
    const follower = followCurrent(gold, 200);
    reelflow('sink', sinkHost, 'sink', '--interval', '1s', '--keep', '100');
    const first = replay('first');
    await until('a snapshot', () => currentSnapshot(gold) !== undefined);

    await until('the member that is cut off has shards', () => {
      if (members[1]?.code !== undefined) throw new Error('it has ended');
      return /"shards":\[\d/.test(members[1]?.output ?? '');
    });
    // Cut off: the others go on with its shards, which a snapshot of the whole dump shows.
    const [, lonely] = memberHosts as [Host, Host, Host];
    network.cut(lonely);
    await first.succeed();
    await untilEqual('the two members that are left have processed everything');

    // Healed, and a fourth host joins. What gave up while it was cut off is started again, as a supervisor would.
    network.heal(lonely);
    if (members[1]?.code !== undefined) {
      expect(members[1].code, members[1].output.slice(-2_000)).not.toBe(exitCodes.defect);
      members[1] = member(2, lonely);
    }
    const fourth = member(4, network.addHost());
    correct(data);
    await replay('second').succeed();
    await untilEqual('four members have processed the corrected dump');
    await until('the fourth host has shards', () => /"shards":\[\d/.test(fourth.output));

    const seen = await follower.stop();
    expect(seen.violations).toEqual([]);
    expect(seen.snapshots).toBeGreaterThan(1);
    for (const running of [...members, fourth])
      expect(await running.stop(), running.output.slice(-2_000)).toBe(0);
  }, 1_800_000);
});
