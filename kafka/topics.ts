/**
 * Creates and checks topics. A retained topic must never delete messages by itself. Brokers default to seven days, so
 * every start checks the settings, not only the creation.
 */
import kafkajs from 'kafkajs';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Broker, clusterTopics, withAdmin } from './client.ts';
import { answerOf, asBrokerError, brokerFailureOf, isUnknownTopic, isWithoutLeader } from './failures.ts';
import { patiently } from './patience.ts';

interface TopicSpec {
  readonly topic: string;
  readonly partitions: number;
  /** For a topic that is trimmed: the broker frees disk space only by whole segments. */
  readonly segmentBytes?: number;
  /** Further settings with which it is created; not checked later. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Size of the largest value that this process sends to the topic. */
  readonly valueBytesMax?: number;
}

/** A busy cluster may take this long until every broker knows a new topic. */
const creationPatienceMs = 30_000;

/** Settings with which a topic is created, and which every start checks. */
interface TopicPolicy {
  readonly settings: Readonly<Record<string, string>>;
  /** What a topic with other settings does, and why that is an error; for the error text. */
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
  why: 'a reader from its start must see the whole table',
};

/**
 * Creates the topics that do not exist, and checks those that do.
 * @param dryRun creates none
 * @returns the topics that did not exist
 * @throws ReelflowError topicMismatch, when an existing topic has another partition count or may delete messages;
 *   brokerRefused, when its message limit is too low
 */
export function ensureRetainedTopics(
  broker: Broker,
  specs: readonly TopicSpec[],
  dryRun = false,
): Promise<string[]> {
  return ensureTopics(broker, specs, retained, dryRun);
}

/** Like `ensureRetainedTopics`, for topics that hold a table: compaction keeps the newest message of each key. */
export function ensureCompactedTopics(
  broker: Broker,
  specs: readonly TopicSpec[],
  dryRun = false,
): Promise<string[]> {
  return ensureTopics(broker, specs, compacted, dryRun);
}

async function ensureTopics(
  broker: Broker,
  specs: readonly TopicSpec[],
  policy: TopicPolicy,
  dryRun: boolean,
): Promise<string[]> {
  return withAdmin(broker, async (admin) => {
    const listed = new Set(await admin.listTopics());
    const unlisted = specs.filter(({ topic }) => !listed.has(topic));
    const hidden = await unlistedCounts(
      admin,
      unlisted.map(({ topic }) => topic),
      (_, refusal) => {
        throw refusal;
      },
    );
    const missing = unlisted.filter(({ topic }) => !hidden.has(topic));
    const present = specs.filter((spec) => !missing.includes(spec));
    // Before the creation, which would leave topics with several counts behind.
    await checkCounts(admin, present);
    if (missing.length > 0 && !dryRun) {
      await admin
        .createTopics({
          topics: missing.map(({ topic, partitions, segmentBytes, settings = {} }) => ({
            topic,
            numPartitions: partitions,
            replicationFactor: -1,
            configEntries: Object.entries({
              ...policy.settings,
              ...(segmentBytes === undefined ? {} : { 'segment.bytes': String(segmentBytes) }),
              ...settings,
            }).map(([name, value]) => ({ name, value })),
          })),
          waitForLeaders: true,
        })
        .catch((thrown) => {
          // Another member may have just created it, or no broker knows it yet; the check below decides.
          if (!isAlreadyExists(thrown) && !isUnknownYet(thrown)) throw thrown;
        });
    }
    const existing = dryRun ? present : specs;
    const absent = missing.map(({ topic }) => topic);
    if (existing.length === 0) return absent;
    if (missing.length > 0 && !dryRun) await checkCounts(admin, existing);
    await checkSettings(admin, existing, policy);
    return absent;
  });
}

/** @throws ReelflowError topicMismatch */
async function checkCounts(admin: kafkajs.Admin, specs: readonly TopicSpec[]): Promise<void> {
  if (specs.length === 0) return;
  const { topics } = await onceKnown(() =>
    admin.fetchTopicMetadata({ topics: specs.map(({ topic }) => topic) }),
  );
  for (const { topic, partitions } of specs) {
    const found = topics.find(({ name }) => name === topic)?.partitions.length ?? 0;
    if (found !== partitions) {
      throw new ReelflowError('topicMismatch', `Topic ${topic} has another partition count`, {
        detail: `It has ${counted(found, 'partition')}, expected ${partitions}. ${sameCount}`,
        hint: `Use --shards ${found}, another --namespace, or recreate the topics.`,
      });
    }
  }
}

const sameCount = 'A partition is a shard: all title topics need the same count.';

/**
 * The partition count of those of the topics that exist.
 * @returns undefined if none exists
 * @throws ReelflowError topicMismatch, if they have several
 */
export function commonCount(
  counts: ReadonlyMap<string, number>,
  topics: readonly string[],
): number | undefined {
  const byCount = Map.groupBy(topics, (topic) => counts.get(topic));
  byCount.delete(undefined);
  const [count] = byCount.keys();
  if (byCount.size < 2) return count;
  const found = [...byCount].map(
    ([count = 0, named]) => `${counted(count, 'partition')}: ${named.join(', ')}.`,
  );
  throw new ReelflowError('topicMismatch', 'Topics have different partition counts', {
    detail: `${found.join(' ')} ${sameCount}`,
    hint: 'Recreate those with the wrong count, or use another --namespace; no --shards fits all of them.',
  });
}

/**
 * Repeats a request about a topic that was just created: the answering broker may not know it yet, and its partitions may
 * still have no leader.
 */
function onceKnown<T>(ask: () => Promise<T>): Promise<T> {
  return patiently(ask, 50, (thrown) => (isUnknownYet(thrown) ? creationPatienceMs : 0));
}

/**
 * Partition counts of those of the topics that exist. The list of all topics lacks those that the user may not describe, so this
 * asks for each missing topic by name.
 * @param onRefused receives each topic that the user may not describe; without it, this throws the first such refusal
 * @throws ReelflowError brokerUnreachable, accessRefused
 */
export async function partitionCounts(
  broker: Broker,
  topics: Iterable<string>,
  onRefused: (topic: string, refusal: unknown) => void = (_, refusal) => {
    throw refusal;
  },
): Promise<Map<string, number>> {
  const { partitions } = await clusterTopics(broker);
  const counts = new Map<string, number>();
  const unlisted: string[] = [];
  for (const topic of topics) {
    const count = partitions.get(topic);
    if (count === undefined) unlisted.push(topic);
    else counts.set(topic, count);
  }
  if (unlisted.length === 0) return counts;
  const refuse = (topic: string, refusal: unknown) =>
    onRefused(topic, asBrokerError(refusal, broker.endpoints));
  const others = await withAdmin(broker, (admin) => unlistedCounts(admin, unlisted, refuse));
  return new Map([...counts, ...others]);
}

/** Partition counts of those topics that exist, although the list of all topics lacks them. */
async function unlistedCounts(
  admin: kafkajs.Admin,
  topics: readonly string[],
  onRefused: (topic: string, refusal: unknown) => void,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const topic of topics) {
    try {
      const [found] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics;
      if (found !== undefined) counts.set(topic, found.partitions.length);
    } catch (thrown) {
      if (brokerFailureOf(thrown) === 'rights') onRefused(topic, thrown);
      else if (!isUnknownYet(thrown)) throw thrown;
    }
  }
  return counts;
}

/**
 * How long topics keep a message, in milliseconds: null for one that deletes none by age.
 * @throws KafkaJSError, without permission to read the settings
 */
export async function readRetention(
  broker: Broker,
  topics: readonly string[],
): Promise<Map<string, number | null>> {
  const found = await withAdmin(broker, (admin) =>
    readSettings(admin, topics, ['cleanup.policy', 'retention.ms']),
  );
  return new Map(
    [...found].map(([topic, settings]) => {
      const retentionMs = Number(settings.get('retention.ms'));
      const deletes = settings.get('cleanup.policy')?.split(',').includes('delete') === true;
      return [topic, deletes && retentionMs > 0 ? retentionMs : null];
    }),
  );
}

/** Settings by topic and name. */
async function readSettings(
  admin: kafkajs.Admin,
  topics: readonly string[],
  names: string[],
): Promise<Map<string, ReadonlyMap<string, string>>> {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: topics.map((name) => ({
      type: kafkajs.ConfigResourceTypes.TOPIC,
      name,
      configNames: names,
    })),
  });
  return new Map(
    resources.map(({ resourceName, configEntries }) => [
      resourceName,
      new Map(configEntries.map(({ configName, configValue }) => [configName, configValue])),
    ]),
  );
}

/**
 * Deletes the messages of each partition before an offset.
 * @throws ReelflowError accessRefused and others; KafkaJSProtocolError OFFSET_OUT_OF_RANGE, of a topic that ends before the offset
 */
export async function deleteBefore(
  broker: Broker,
  topic: string,
  partitions: readonly { partition: number; offset: number }[],
): Promise<void> {
  await withAdmin(broker, (admin) =>
    onceKnown(async () => {
      // kafkajs looks up leaders before it has requested the topic's metadata; this request loads it.
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({
        topic,
        partitions: partitions.map(({ partition, offset }) => ({ partition, offset: String(offset) })),
      });
    }).catch((thrown) => {
      throw answerOf(thrown) ?? thrown;
    }),
  );
}

/** Bytes of a record batch around the value of its only record: batch header, key, and the headers of a dead letter. */
const batchOverheadBytes = 4_000;

async function checkSettings(
  admin: kafkajs.Admin,
  specs: readonly TopicSpec[],
  { settings, what, why }: TopicPolicy,
): Promise<void> {
  const topics = specs.map(({ topic }) => topic);
  const found = await onceKnown(() =>
    readSettings(admin, topics, [...Object.keys(settings), 'max.message.bytes']),
  );
  for (const { topic, valueBytesMax } of specs) {
    for (const [name, wanted] of Object.entries(settings)) {
      const value = found.get(topic)?.get(name);
      if (value !== wanted) {
        throw new ReelflowError('topicMismatch', `Topic ${topic} ${what}`, {
          detail: `Its ${name} is ${value}; it must be ${wanted}, because ${why}.`,
          hint: `Run \`kafka-configs.sh --alter --topic ${topic} --add-config ${name}=${wanted}\`.`,
        });
      }
    }
    const limit = found.get(topic)?.get('max.message.bytes');
    const least = (valueBytesMax ?? 0) + batchOverheadBytes;
    if (valueBytesMax !== undefined && limit !== undefined && Number(limit) < least) {
      throw new ReelflowError('brokerRefused', `Topic ${topic} refuses large messages`, {
        detail: `Its max.message.bytes is ${limit}, messages have up to ${least} bytes.`,
        hint: `Run \`kafka-configs.sh --alter --topic ${topic} --add-config max.message.bytes=1048588\`.`,
      });
    }
  }
}

function isUnknownYet(thrown: unknown): boolean {
  return isUnknownTopic(thrown) || isWithoutLeader(thrown);
}

function isAlreadyExists(thrown: unknown): boolean {
  const error = thrown as { type?: string; errors?: { type?: string }[] };
  return (
    error.type === 'TOPIC_ALREADY_EXISTS' ||
    (error.errors?.every(({ type }) => type === 'TOPIC_ALREADY_EXISTS') ?? false)
  );
}
