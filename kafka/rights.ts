/**
 * Finds the right that a refused request lacks. Kafka answers with a code alone. Resource and operation follow from the request
 * and from the place of the code in the answer, of which kafkajs keeps neither. Importing this file changes the connections of
 * all clients.
 */
import BrokerPool from 'kafkajs/src/cluster/brokerPool.js';
import Connection, { type KafkaRequest } from 'kafkajs/src/network/connection.js';

export interface MissingRight {
  /** As the ACLs of Kafka call them. */
  readonly operation: string;
  readonly resource: 'topic' | 'group' | 'cluster' | 'transactional id';
  /** Empty for the cluster. */
  readonly name: string;
}

/** Kafka's error codes for a missing right. */
const resources: Readonly<Record<number, MissingRight['resource']>> = {
  29: 'topic',
  30: 'group',
  31: 'cluster',
  53: 'transactional id',
};

/** The operation of a request on a resource, where it is not Describe. */
const operations: Readonly<Record<MissingRight['resource'], Readonly<Record<string, string>>>> = {
  topic: {
    Produce: 'Write',
    AddPartitionsToTxn: 'Write',
    Fetch: 'Read',
    OffsetCommit: 'Read',
    CreateTopics: 'Create',
    DeleteTopics: 'Delete',
    DeleteRecords: 'Delete',
    DescribeConfigs: 'DescribeConfigs',
  },
  group: {
    JoinGroup: 'Read',
    SyncGroup: 'Read',
    Heartbeat: 'Read',
    OffsetCommit: 'Read',
    DeleteGroups: 'Delete',
  },
  cluster: { CreateTopics: 'Create', InitProducerId: 'IdempotentWrite', Produce: 'IdempotentWrite' },
  'transactional id': { InitProducerId: 'Write', AddPartitionsToTxn: 'Write', Produce: 'Write' },
};

/** The missing right of each error that a refusal of a broker caused. */
const missing = new WeakMap<Error, MissingRight>();

/** The right whose absence caused this error; undefined for any other error. */
export const missingRightOf = (error: Error): MissingRight | undefined => missing.get(error);

const { send } = Connection.prototype;

Connection.prototype.send = async function (this: Connection, sent: KafkaRequest): Promise<unknown> {
  const { decode } = sent.response;
  let answer: unknown;
  const remember = async (payload: Buffer) => {
    answer = await decode(payload);
    return answer;
  };
  try {
    return await send.call(this, { ...sent, response: { ...sent.response, decode: remember } });
  } catch (thrown) {
    const refused = firstRefusal(answer);
    if (refused !== undefined && thrown instanceof Error) {
      const { resource, name = await firstText(sent) } = refused;
      const operation = operations[resource][sent.request.apiName] ?? 'Describe';
      missing.set(thrown, { operation, resource, name: resource === 'cluster' ? '' : name });
    }
    throw thrown;
  }
};

const { withBroker } = BrokerPool.prototype;

/** kafkajs drops the reason why no broker named a coordinator, and the caller would wait for one permanently. */
BrokerPool.prototype.withBroker = async function <T>(
  this: BrokerPool,
  ask: (broker: object) => Promise<T>,
): Promise<T | null> {
  let refusal: unknown;
  const answer = await withBroker.call(this, async (broker: object) => {
    try {
      return await ask(broker);
    } catch (thrown) {
      for (let error = thrown; error instanceof Error; error = error.cause)
        if (missing.has(error)) refusal = thrown;
      throw thrown;
    }
  });
  if (answer === null && refusal !== undefined) throw refusal;
  return answer as T | null;
};

/** The first code of a missing right in an answer, and the name beside or above it. */
function firstRefusal(
  part: unknown,
  above?: string,
): { resource: MissingRight['resource']; name?: string } | undefined {
  if (typeof part !== 'object' || part === null || Buffer.isBuffer(part)) return undefined;
  if (Array.isArray(part)) {
    for (const each of part) {
      const found = firstRefusal(each, above);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  const {
    topic,
    topicName,
    resourceName,
    groupId,
    errorCode,
    topicErrorCode,
    messages: _,
    ...rest
  } = part as Readonly<Record<string, unknown>>;
  const ofTopic = [topic, topicName, resourceName].find((name) => typeof name === 'string') ?? above;
  const resource = resources[(errorCode ?? topicErrorCode) as number];
  if (resource === undefined) return firstRefusal(Object.values(rest), ofTopic as string | undefined);
  // The refusal of a group may stand below a topic.
  const name = resource === 'topic' ? ofTopic : groupId;
  return { resource, ...(typeof name === 'string' && { name }) };
}

/** Requests about one group or one transactional id begin with its name. */
async function firstText({ request }: KafkaRequest): Promise<string> {
  const { buffer } = await request.encode();
  const length = buffer.length < 2 ? 0 : buffer.readInt16BE(0);
  return length > 0 ? buffer.toString('utf8', 2, 2 + length) : '';
}
