/**
 * The accuracy of the time to catch up: observes a group as `reelflow lag --watch` does until its lag is 0, and compares
 * each prediction with the actual time. Build up a lag first, with no producer running, and start the members when this
 * runs; or use `--slow-consumer`, a plain kafkajs consumer that takes twenty messages a second from a topic of its own.
 *
 *     node bench/catch-up.ts --namespace NAME | --group NAME | --slow-consumer
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { openContext } from '../cli/context.ts';
import { pipelineGroups } from '../cli/pipeline-groups.ts';
import { type Broker, withAdmin } from '../kafka/client.ts';
import type { GroupLag } from '../monitor/lag.ts';
import { LagWatch } from '../monitor/lag-watch.ts';

const lookEveryMs = 1_000;
const slowMessages = 2_400;
const slowMessageMs = 50;

const { values } = parseArgs({
  options: {
    namespace: { type: 'string', default: '' },
    group: { type: 'string' },
    'slow-consumer': { type: 'boolean', default: false },
  },
});
const { broker, names } = await openContext({ gold: '', state: '', namespace: values.namespace });
const slow = values['slow-consumer'] ? await startSlowConsumer(broker) : undefined;
const name = slow?.group ?? values.group ?? names.processorGroup;
const own = (await pipelineGroups(names)).find(({ group }) => group === name);
const looks = await looksUntilDone(name, own?.topics ?? []);
await slow?.end();
report(looks);

type Look = Pick<GroupLag, 'catchUpMs' | 'lag' | 'state'> & { readonly atMs: number };

async function looksUntilDone(group: string, topics: readonly string[]): Promise<Look[]> {
  const watch = new LagWatch(broker);
  const looks: Look[] = [];
  for (;;) {
    const { atMs, groups } = await watch.look([{ group, topics }]);
    const [{ catchUpMs, lag, lagUnknown, state }] = groups as [GroupLag];
    looks.push({ atMs, catchUpMs, lag, state });
    if (lag === 0 && lagUnknown === 0 && looks.some((look) => (look.lag ?? 0) > 0)) return looks;
    await sleep(lookEveryMs);
  }
}

function report(looks: readonly Look[]): void {
  const doneMs = looks.at(-1)?.atMs as number;
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  process.stdout.write('messages left    state  said (s)  happened (s)  off by\n');
  const off: number[] = [];
  looks.forEach(({ atMs, catchUpMs, lag, state }, i) => {
    const happenedMs = doneMs - atMs;
    const isSaid = catchUpMs !== null && Number.isFinite(catchUpMs) && happenedMs > 0;
    const by = isSaid ? catchUpMs / happenedMs - 1 : undefined;
    if (by !== undefined) off.push(by);
    if (i % 5 !== 0) return;
    const said = catchUpMs === null ? 'unknown' : Number.isFinite(catchUpMs) ? seconds(catchUpMs) : 'never';
    const cells = [String(lag ?? 'unknown').padStart(13), (state ?? 'unknown').padStart(7), said.padStart(8)];
    cells.push(
      seconds(happenedMs).padStart(12),
      by === undefined ? '' : `${(by * 100).toFixed(0)} %`.padStart(6),
    );
    process.stdout.write(`${cells.join('  ').trimEnd()}\n`);
  });
  const within = off.filter((by) => Math.abs(by) <= 0.2).length;
  process.stdout.write(
    `${within} of ${off.length} times that were said were within 20 % of what then happened\n`,
  );
}

async function startSlowConsumer({ kafka }: Broker): Promise<{ group: string; end: () => Promise<void> }> {
  const group = `catch-up-${randomBytes(5).toString('hex')}`;
  await withAdmin(broker, (admin) => admin.createTopics({ topics: [{ topic: group, numPartitions: 1 }] }));
  const producer = kafka.producer();
  await producer.connect();
  const messages = Array.from({ length: slowMessages }, () => ({ value: 'x' }));
  await producer.send({ topic: group, messages });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: group });
  await consumer.connect();
  await consumer.subscribe({ topics: [group], fromBeginning: true });
  // By the clock: on a loaded machine each sleep alone would be longer.
  let dueMs = 0;
  const eachMessage = async () => {
    dueMs = (dueMs === 0 ? Date.now() : dueMs) + slowMessageMs;
    await sleep(Math.max(0, dueMs - Date.now()));
  };
  await consumer.run({ autoCommitInterval: 5_000, eachMessage });
  return {
    group,
    async end() {
      await consumer.disconnect();
      await withAdmin(broker, async (admin) => {
        await admin.deleteGroups([group]);
        await admin.deleteTopics({ topics: [group] });
      });
    },
  };
}
