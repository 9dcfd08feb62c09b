/** Opens the store of a shard and reads what is published of the shard: everything that its owner starts from. */
import type { BoundsByTopic } from '../kafka/bounds.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Position } from '../topics/position.ts';
import { Publisher } from './publisher.ts';
import type { ShardContext } from './shard-context.ts';
import type { ShardRequests } from './shard-requests.ts';
import type { ShardIdentity, ShardStore } from './shard-store.ts';
import { SourceBases } from './source-bases.ts';
import { createStore, openFurthest } from './store-folder.ts';

interface OpenedStore {
  readonly identity: ShardIdentity;
  readonly store: ShardStore;
  readonly publisher: Publisher;
  /** Start and end of the sources, as they were before the published deltas were read. */
  readonly bounds: BoundsByTopic;
  readonly bases: SourceBases;
}

/** How often the published deltas are read again when the sink trims them meanwhile. */
const foldsMax = 5;

/**
 * @param topics sources that the shard reads
 * @throws ReelflowError deltasTrimmed, foreignCluster, stateUnusable
 */
export async function openStore(
  shard: Omit<ShardIdentity, 'generation'>,
  topics: readonly string[],
  context: ShardContext,
  requests: ShardRequests,
  warn: (what: string) => void,
): Promise<OpenedStore> {
  const { backups, folder, instance, lockPatienceMs } = context;
  for (;;) {
    const { publisher: seen, bounds } = await foldPublished(shard.shard, topics, context, requests);
    requirePublished(seen, shard.shard, context);
    const { generation, position } = seen.published;
    const identity = { ...shard, generation };
    const starts = context.acceptLoss ? {} : startsOf(bounds, topics, shard.shard);
    const store = await openFurthest(
      instance,
      folder,
      identity,
      lockPatienceMs,
      warn,
      async (storeMessages) => backups?.restore(identity, folder, position, storeMessages, starts, warn),
    );
    try {
      // Again, now that this member holds the lock: the previous owner has published while we waited for it. With the
      // older ends, the position of the store would lie past them, and the topics would seem to have lost their tails.
      const published = await foldPublished(shard.shard, topics, context, requests);
      if (published.publisher.published.generation === generation) {
        const bases = new SourceBases(shard.shard, published.bounds, requests);
        // A topic of which it has read nothing may begin anywhere.
        const read = topics.filter((topic) => store.sources.has(topic));
        const behind = await bases.topicsBehind(read, store.position);
        if (behind.length === 0) return { identity, store, bases, ...published };
        // Rows that vanished between the store and the base are in no message any more.
        warn(`store ${store.path} lies before the base at which ${behind.join(', ')} starts: it is rebuilt`);
        await store.remove();
        return { identity, store: await createStore(instance, folder, identity), bases, ...published };
      }
    } catch (thrown) {
      await store.close();
      throw thrown;
    }
    await store.close();
  }
}

function startsOf(bounds: BoundsByTopic, topics: readonly string[], shard: number): Position {
  return Object.fromEntries(topics.map((topic) => [topic, bounds.get(topic)?.get(shard)?.start ?? 0]));
}

async function foldPublished(
  shard: number,
  topics: readonly string[],
  { names, deltaSchemaId }: ShardContext,
  requests: ShardRequests,
): Promise<{ publisher: Publisher; bounds: BoundsByTopic }> {
  for (let attempt = 1; ; attempt++) {
    const bounds = await requests.bounds([names.deltas, ...topics]);
    const { start, end } = bounds.get(names.deltas)?.get(shard) ?? { start: 0, end: 0 };
    const publisher = new Publisher(
      { producer: requests, reader: requests, topic: names.deltas, shard, deltaSchemaId },
      start,
    );
    try {
      await publisher.fold(end);
      return { publisher, bounds };
    } catch (thrown) {
      // The sink trims deltas that its snapshots contain. The remaining ones lead to the same state.
      const isTrimmed = thrown instanceof ReelflowError && thrown.kind === 'deltasTrimmed';
      if (!isTrimmed || attempt === foldsMax) throw thrown;
    }
  }
}

/** Requires, before any store is touched, that the published state is known. */
function requirePublished({ isUnknown, next }: Publisher, shard: number, { names }: ShardContext): void {
  if (isUnknown) {
    throw new ReelflowError('deltasTrimmed', `All published deltas of shard ${shard} are gone`, {
      detail: `${names.deltas}/${shard} is empty before offset ${next}, so the state of the sink is unknown.`,
      hint: "End all members, run `reelflow reset` with the sink's --gold, and start again.",
    });
  }
}
