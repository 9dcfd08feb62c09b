/**
 * Creating and checking topics. A retained topic never deletes by itself: brokers default to seven days, so the
 * settings are checked at every start, not only at creation.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { ReelflowError } from '../runtime/errors.ts';
import { type Broker, withAdmin } from './client.ts';

export interface TopicSpec {
  readonly topic: string;
  readonly partitions: number;
  /** Size of its segments, for a topic that is trimmed: the broker gives back room only by whole segments. */
  readonly segmentBytes?: number;
}

/** A busy broker takes its time until all of it knows a new topic. */
const creationPatienceMs = 30_000;

/** How a topic is created, and checked at every start. */
interface TopicPolicy {
  readonly settings: Readonly<Record<string, string>>;
  /** What is wrong with other settings, and why. */
  readonly what: string;
  readonly why: string;
}

const retained: TopicPolicy = {
  settings: { 'cleanup.policy': 'delete', 'retention.ms': '-1', 'retention.bytes': '-1' },
  what: 'may delete messages',
  why: 'the topics are the source of truth',
};

const compacted: TopicPolicy = {
  settings: { 'cleanup.policy': 'compact' },
  what: 'does not keep the newest message of each key',
  why: 'whoever reads it from its start has to see the whole table',
};

/**
 * Creates the topics that do not exist, and checks those that do.
 * @throws ReelflowError topicMismatch, when an existing topic has another partition count or may delete messages
 */
export function ensureRetainedTopics(broker: Broker, specs: readonly TopicSpec[]): Promise<void> {
  return ensureTopics(broker, specs, retained);
}

/** As `ensureRetainedTopics`, for topics that hold a table: the newest message of each key stays. */
export function ensureCompactedTopics(broker: Broker, specs: readonly TopicSpec[]): Promise<void> {
  return ensureTopics(broker, specs, compacted);
}

async function ensureTopics(broker: Broker, specs: readonly TopicSpec[], policy: TopicPolicy): Promise<void> {
  await withAdmin(broker, async (admin) => {
    const existing = new Set(await admin.listTopics());
    const missing = specs.filter(({ topic }) => !existing.has(topic));
    if (missing.length > 0) {
      await admin
        .createTopics({
          topics: missing.map(({ topic, partitions, segmentBytes }) => ({
            topic,
            numPartitions: partitions,
            replicationFactor: -1,
            configEntries: Object.entries({
              ...policy.settings,
              ...(segmentBytes === undefined ? {} : { 'segment.bytes': String(segmentBytes) }),
            }).map(([name, value]) => ({ name, value })),
          })),
          waitForLeaders: true,
        })
        .catch((thrown) => {
          // Another member may have created it in this moment, or nobody knows it yet; the check below decides.
          if (!isAlreadyExists(thrown) && !isUnknownYet(thrown)) throw thrown;
        });
    }
    const topics = await metadataOf(
      admin,
      specs.map(({ topic }) => topic),
    );
    for (const { topic, partitions } of specs) {
      const found = topics.find(({ name }) => name === topic)?.partitions.length ?? 0;
      if (found !== partitions) {
        throw new ReelflowError('topicMismatch', `Topic ${topic} has another partition count`, {
          detail: `It has ${found} partitions, ${partitions} were expected. A partition is a shard: all title topics need the same count.`,
          hint: `Use --shards ${found}, another --namespace, or recreate the topics.`,
        });
      }
    }
    await checkPolicy(
      admin,
      specs.map(({ topic }) => topic),
      policy,
    );
  });
}

/** A topic that was just created, by us or by another member, may be unknown to the broker that answers for some moments. */
async function onceKnown<T>(ask: () => Promise<T>): Promise<T> {
  const started = Date.now();
  for (;;) {
    try {
      return await ask();
    } catch (thrown) {
      if (!isUnknownYet(thrown) || Date.now() - started > creationPatienceMs) throw thrown;
      await sleep(50);
    }
  }
}

async function metadataOf(admin: kafkajs.Admin, topics: string[]): Promise<kafkajs.ITopicMetadata[]> {
  return (await onceKnown(() => admin.fetchTopicMetadata({ topics }))).topics;
}

/** The partition count of each existing topic among those asked for. */
export async function partitionCounts(
  broker: Broker,
  topics: readonly string[],
): Promise<Map<string, number>> {
  return withAdmin(broker, async (admin) => {
    const existing = new Set(await admin.listTopics());
    const asked = topics.filter((topic) => existing.has(topic));
    if (asked.length === 0) return new Map();
    const metadata = await metadataOf(admin, asked);
    return new Map(metadata.map(({ name, partitions }) => [name, partitions.length]));
  });
}

/** Deletes the messages of each partition before an offset. */
export async function deleteBefore(
  broker: Broker,
  topic: string,
  partitions: readonly { partition: number; offset: number }[],
): Promise<void> {
  await withAdmin(broker, async (admin) => {
    // kafkajs looks for the leaders before it has asked for the topic: any question about it makes it known.
    await admin.fetchTopicOffsets(topic);
    await admin.deleteTopicRecords({
      topic,
      partitions: partitions.map(({ partition, offset }) => ({ partition, offset: String(offset) })),
    });
  });
}

async function checkPolicy(
  admin: kafkajs.Admin,
  topics: readonly string[],
  { settings, what, why }: TopicPolicy,
): Promise<void> {
  const { resources } = await onceKnown(() =>
    admin.describeConfigs({
      includeSynonyms: false,
      resources: topics.map((name) => ({
        type: kafkajs.ConfigResourceTypes.TOPIC,
        name,
        configNames: Object.keys(settings),
      })),
    }),
  );
  for (const { resourceName, configEntries } of resources) {
    for (const [name, wanted] of Object.entries(settings)) {
      const value = configEntries.find((entry) => entry.configName === name)?.configValue;
      if (value !== wanted) {
        throw new ReelflowError('topicMismatch', `Topic ${resourceName} ${what}`, {
          detail: `Its ${name} is ${value}, it must be ${wanted}: ${why}.`,
          hint: `kafka-configs.sh --alter --topic ${resourceName} --add-config ${name}=${wanted}`,
        });
      }
    }
  }
}

function isUnknownYet(thrown: unknown): boolean {
  const { type } = thrown as { type?: string };
  return type === 'UNKNOWN_TOPIC_OR_PARTITION' || type === 'LEADER_NOT_AVAILABLE';
}

function isAlreadyExists(thrown: unknown): boolean {
  const error = thrown as { type?: string; errors?: { type?: string }[] };
  return (
    error.type === 'TOPIC_ALREADY_EXISTS' ||
    (error.errors?.every(({ type }) => type === 'TOPIC_ALREADY_EXISTS') ?? false)
  );
}
