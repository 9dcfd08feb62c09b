/**
 * A pipeline's left end in a namespace of its own, the dumps that are replayed into it, and what its topics hold: folded by
 * avsc, with the rule of `replaces` written out once more.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, inject } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { createBroker, withAdmin } from '../../kafka/client.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { headerLineOf } from '../../producers/file-layout.ts';
import { type ReplayOptions, replay } from '../../producers/replay.ts';
import { createLogger } from '../../runtime/logger.ts';
import { type DatasetName, datasets, idText, topicNamesIn } from '../../topics/catalog.ts';
import { readDeadLetter } from '../../topics/dead-letter.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { Registry } from '../../topics/registry.ts';
import { until } from './harness.ts';

type Row = Record<string, unknown>;

export const logger = createLogger('silent');
export const broker = createBroker(
  { brokers: inject('brokers'), registryUrl: inject('registryUrl') },
  logger,
);
export const registry = new Registry({ url: inject('registryUrl') });
const folders: string[] = [];
const namespaces: string[] = [];

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') return;
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  await withAdmin(broker, async (admin) => {
    const topics = (await admin.listTopics()).filter((topic) =>
      namespaces.some((namespace) => topic.startsWith(`${namespace}.`)),
    );
    if (topics.length > 0) await admin.deleteTopics({ topics });
  });
  namespaces.length = 0;
});

/** A new folder with these files, by name. */
export function folder(files: Readonly<Record<string, string | Buffer>> = {}): string {
  const path = mkdtempSync(join(tmpdir(), 'reelflow-producers-'));
  folders.push(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content);
  return path;
}

export function newNamespace(): string {
  const namespace = `producers-${randomBytes(5).toString('hex')}`;
  namespaces.push(namespace);
  return namespace;
}

export class DumpPlace {
  readonly options: Omit<ReplayOptions, 'inputs'>;
  #day = 0;

  constructor() {
    const names = topicNamesIn(newNamespace());
    // Without bases, so that what a replay sends is what its dump changes.
    const baseAbove = Number.POSITIVE_INFINITY;
    this.options = { broker, registry, logger, names, state: folder(), shards: 2, baseAbove };
  }

  /** Files of a dump that is a day newer than the one before. */
  dump(files: Partial<Record<DatasetName, string | Buffer>>, day = ++this.#day): string {
    const directory = folder();
    // Dates of files are finer than milliseconds.
    const time = Date.UTC(2026, 0, day) / 1000 + 0.0006;
    for (const [dataset, content] of Object.entries(files)) {
      const path = join(directory, `${dataset}.tsv${typeof content === 'string' ? '' : '.gz'}`);
      writeFileSync(path, content);
      utimesSync(path, time, time);
    }
    return directory;
  }

  replay(directory: string, more: Partial<ReplayOptions> = {}) {
    return replay({ ...this.options, inputs: [directory], ...more });
  }

  /** What the topic holds. */
  async held(dataset: DatasetName): Promise<Map<string, Row>> {
    const { columns, keyColumns } = datasets[dataset];
    const keyOf = (row: Row) =>
      columns
        .slice(0, keyColumns)
        .map(({ name }) => String(row[name]))
        .join(' ');
    const rows = new Map<string, Row>();
    for await (const { messages } of scanTopic(broker, this.options.names.source(dataset))) {
      for (const { value } of messages) {
        const bytes = value as Buffer;
        if (bytes[0] !== 0) continue;
        const type = await registry.writer(bytes.readInt32BE(1));
        const chunk = type?.fromBuffer(bytes.subarray(5)) as {
          replaces: number[];
          records: Row[];
          deletes: Row[];
        };
        for (const key of rows.keys()) {
          if (chunk.replaces.includes(groupOf(Number(key.slice(2).split(' ')[0])))) rows.delete(key);
        }
        for (const row of chunk.records) rows.set(keyOf(row), { ...row });
        for (const row of chunk.deletes) rows.delete(keyOf(row));
      }
    }
    return rows;
  }

  async keys(dataset: DatasetName): Promise<string[]> {
    return [...(await this.held(dataset)).keys()].sort();
  }

  /** Letters, whatever became of them. */
  async deadLetters(): Promise<number> {
    let letters = 0;
    for await (const { partition, messages } of scanTopic(broker, this.options.names.deadLetter)) {
      letters += messages.filter((each) => readDeadLetter({ ...each, partition }).kind === 'letter').length;
    }
    return letters;
  }

  /** The topics of this place with their ends, the subjects of the registry, and the files of the state folder. */
  async traces() {
    const { namespace } = this.options.names;
    const isOwn = (name: string) => name.startsWith(`${namespace}.`);
    const topics = (await withAdmin(broker, (admin) => admin.listTopics())).filter(isOwn).sort();
    const bounds = await logBounds(broker, topics);
    const answer = await fetch(`${inject('registryUrl')}/subjects`);
    return {
      ends: topics.map((topic) => [topic, ...[...(bounds.get(topic)?.values() ?? [])].map(({ end }) => end)]),
      subjects: ((await answer.json()) as string[]).filter(isOwn).sort(),
      files: readdirSync(this.options.state, { recursive: true }).sort(),
    };
  }

  /** Messages on all source topics. */
  async messages(): Promise<number> {
    const { names } = this.options;
    const topics = (Object.keys(datasets) as DatasetName[]).map((dataset) => names.source(dataset));
    const bounds = await logBounds(broker, topics);
    return [...bounds.values()].flatMap((of) => [...of.values()]).reduce((sum, { end }) => sum + end, 0);
  }
}

export const fileOf = (dataset: DatasetName, lines: readonly string[]) =>
  `${[headerLineOf(datasets[dataset]), ...lines].join('\n')}\n`;
export const ratings = (votes: Readonly<Record<number, number>>) =>
  fileOf(
    'title.ratings',
    Object.entries(votes)
      .map(([id, count]) => `${idText('tt', Number(id))}\t5.0\t${count}`)
      .sort(),
  );
const basics = (ids: readonly number[]) =>
  fileOf('title.basics', ids.map((id) => `${idText('tt', id)}\tmovie\tA\tA\t0\t1994\t\\N\t90\tDrama`).sort());
export const many = (votes: (id: number) => number | undefined, count = 2_000) => {
  const all: Record<number, number> = {};
  for (let id = 1; id <= count; id++) {
    const vote = votes(id);
    // Far apart, so that there are several blocks, and ids of both lengths.
    if (vote !== undefined) all[id * 9_973] = vote;
  }
  return all;
};
/** The same rows in an order of their own. */
export const shuffled = (file: string) => {
  const [head, ...lines] = file.trimEnd().split('\n');
  const hash = (line: string) => createHash('sha256').update(line).digest('hex');
  return `${[head, ...lines.sort((x, y) => (hash(x) < hash(y) ? -1 : 1))].join('\n')}\n`;
};
const titles = (votes: Readonly<Record<number, number>>) => basics(Object.keys(votes).map(Number));
export const votesOf = async (place: DumpPlace) =>
  Object.fromEntries(
    [...(await place.held('title.ratings'))].map(([key, row]) => [Number(key.slice(2)), row.numVotes]),
  );
export const dumpOf = (votes: Readonly<Record<number, number>>) => ({
  'title.ratings': ratings(votes),
  'title.basics': titles(votes),
});

/** Deletes topics and waits until the broker lists them no more: a replay would take them for existing ones. */
export async function deleteTopics(...topics: string[]): Promise<void> {
  await withAdmin(broker, async (admin) => {
    await admin.deleteTopics({ topics });
    await until('the topics are gone', async () => {
      const left = await admin.listTopics();
      return !topics.some((topic) => left.includes(topic));
    });
  });
}
