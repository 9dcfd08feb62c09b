declare module 'lz4js' {
  const lz4: {
    compress(data: Uint8Array, maxSize?: number): Uint8Array;
    decompress(data: Uint8Array, maxSize?: number): Uint8Array;
  };
  export default lz4;
}

declare module 'snappyjs' {
  const snappy: {
    compress(data: Uint8Array): Uint8Array;
    uncompress(data: Uint8Array, maxLength?: number): Uint8Array;
  };
  export default snappy;
}

// kafkajs' own cluster object: what its consumer is built on. Version 2.2.4 exactly, pinned in package.json.
declare module 'kafkajs/src/cluster/index.js' {
  export interface FetchedMessage {
    offset: string;
    timestamp: string;
    key: Buffer | null;
    value: Buffer | null;
    headers: Record<string, Buffer | undefined>;
    isControlRecord: boolean;
    /** Absent in message formats without batches. */
    readonly batchContext?: {
      readonly firstOffset: string;
      readonly lastOffsetDelta: number;
      readonly partitionLeaderEpoch: number;
    };
  }
  export interface FetchResponse {
    responses: {
      topicName: string;
      partitions: {
        partition: number;
        highWatermark: string;
        lastStableOffset: string;
        abortedTransactions: unknown[];
        messages: FetchedMessage[];
      }[];
    }[];
  }
  export interface Broker {
    nodeId: number;
    connectionPool: {
      host: string;
      port: number;
      send<T>(message: {
        request: {
          apiKey: number;
          apiVersion: number;
          apiName: string;
          encode(): Promise<import('kafkajs/src/protocol/encoder.js').default>;
        };
        response: { decode(bytes: Buffer): Promise<T>; parse(decoded: T): Promise<T> };
      }): Promise<T>;
    };
    /** By API key; null until it is connected. */
    versions: Readonly<Record<number, { minVersion: number; maxVersion: number }>> | null;
    listOffsets(request: {
      isolationLevel: number;
      topics: { topic: string; partitions: { partition: number; timestamp: number }[] }[];
    }): Promise<{ responses: { topic: string; partitions: { partition: number; offset: string }[] }[] }>;
    disconnect(): Promise<void>;
    /** Answered by the transaction coordinator of the id. */
    initProducerId(request: {
      transactionalId: string;
      transactionTimeout: number;
    }): Promise<{ producerId: string; producerEpoch: number }>;
    fetch(request: {
      maxWaitTime: number;
      minBytes: number;
      maxBytes: number;
      isolationLevel: number;
      topics: { topic: string; partitions: { partition: number; fetchOffset: string; maxBytes: number }[] }[];
    }): Promise<FetchResponse>;
    offsetCommit(request: {
      groupId: string;
      groupGenerationId: number;
      memberId: string;
      topics: { topic: string; partitions: { partition: number; offset: string; metadata: string }[] }[];
    }): Promise<unknown>;
  }
  export default class Cluster {
    constructor(options: Record<string, unknown>);
    connect(): Promise<void>;
    disconnect(): Promise<void>;
    addMultipleTargetTopics(topics: string[]): Promise<void>;
    refreshMetadata(): Promise<void>;
    refreshMetadataIfNecessary(): Promise<void>;
    findLeaderForPartitions(topic: string, partitions: number[]): Record<string, number[]>;
    findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[];
    findBroker(where: { nodeId: string }): Promise<Broker>;
    /** @param where the id of a transaction, if `coordinatorType` is 1 */
    findGroupCoordinator(where: { groupId: string; coordinatorType?: number }): Promise<Broker>;
    removeBroker(where: { host: string; port: number }): void;
    brokerPool: {
      /** Repeats what fails. @param attempt gets a function that ends the attempts, and how many there were */
      retrier<T>(
        attempt: (bail: (thrown: unknown) => void, attempts: number, pauseMs: number) => Promise<T>,
      ): Promise<T>;
      brokers: Readonly<Record<string, Broker>>;
      /** Of the target topics, or of all topics without any; absent before the first refresh. */
      metadata: {
        clusterId: string;
        topicMetadata: { topic: string; partitionMetadata: unknown[] }[];
      };
    };
  }
}

// Of kafkajs 2.2.4 exactly, as everything below.
declare module 'kafkajs/src/protocol/encoder.js' {
  export default class Encoder {
    writeUVarInt(value: number): this;
    writeBoolean(value: boolean): this;
    /** Writes their length + 1 before them. */
    writeUVarIntBytes(bytes: Buffer): this;
    constructor(bytes?: number);
    writeInt16(value: number): this;
    writeInt32(value: number): this;
    writeString(value: string | null): this;
    writeBuffer(value: Buffer): this;
  }
}

declare module 'kafkajs/src/broker/index.js' {
  export default class Broker {
    constructor(options: { logger: object; connectionPool: object });
    connect(): Promise<void>;
    /** Null until the broker has named them. */
    versions: object | null;
    /** The first connection serves everything but fetches. */
    readonly connectionPool: {
      readonly host: string;
      readonly port: number;
      readonly pool: readonly [{ readonly socket: import('node:net').Socket }, ...unknown[]];
    };
    isConnected(): boolean;
    apiVersions(): Promise<object>;
    offsetCommit(request: object): Promise<object>;
  }
}

declare module 'kafkajs/src/admin/index.js' {
  export default function createAdmin(options: {
    logger: unknown;
    retry?: import('kafkajs').RetryOptions;
    cluster: object;
  }): import('kafkajs').Admin;
}

declare module 'kafkajs/src/cluster/brokerPool.js' {
  export default class BrokerPool {
    /** Asks one broker after the other. @returns null if all have failed */
    withBroker(ask: (broker: object) => Promise<unknown>): Promise<unknown>;
  }
}

declare module 'kafkajs/src/network/connection.js' {
  export interface KafkaRequest {
    readonly request: { readonly apiName: string; encode(): Promise<{ readonly buffer: Buffer }> };
    readonly response: { decode(payload: Buffer): Promise<unknown> };
  }
  export default class Connection {
    readonly socket: import('node:net').Socket;
    /** Bytes of an answer that is not complete. */
    readonly bytesBuffered: number;
    /** Set while the connection logs in. */
    readonly authHandlers: object | null;
    processData(bytes: Buffer): void;
    send(sent: KafkaRequest): Promise<unknown>;
  }
}

declare module 'kafkajs/src/consumer/consumerGroup.js' {
  export default class ConsumerGroup {
    readonly groupId: string;
    readonly maxWaitTime: number;
    readonly cluster: { refreshMetadataIfNecessary(): Promise<void> };
    checkForStaleAssignment(): void;
    recoverFromFetch(thrown: unknown): Promise<void>;
    fetch(nodeId: string): Promise<unknown[]>;
  }
}

declare module 'kafkajs/src/consumer/runner.js' {
  export default class Runner {
    /** @returns undefined, without a request, while the consumer does not run */
    commitOffsets(offsets: object): Promise<void> | undefined;
  }
}

declare module 'kafkajs/src/network/requestQueue/index.js' {
  export default class RequestQueue {
    constructor(options: {
      maxInFlightRequests: number | null;
      requestTimeout: number;
      enforceRequestTimeout: boolean;
      clientId: string;
      broker: string;
      logger: { debug(): void };
    });
    push(request: {
      entry: { correlationId: number; reject(error: Error): void };
      expectResponse: boolean;
      requestTimeout: number | null;
      sendRequest(): void;
    }): void;
    maybeThrottle(ms: number): void;
    scheduleRequestTimeoutCheck(): void;
    destroy(): void;
  }
}

declare module 'kafkajs/src/network/requestQueue/socketRequest.js' {
  export default class SocketRequest {}
}

declare module 'kafkajs/src/loggers/index.js' {
  import type { logCreator, logLevel } from 'kafkajs';

  const createLogger: {
    createLogger(options: { level: logLevel; logCreator: logCreator }): unknown;
  };
  export default createLogger;
}

declare module 'kafkajs/src/network/socketFactory.js' {
  import type { ISocketFactory } from 'kafkajs';
  export default function socketFactory(): ISocketFactory;
}

declare module 'kafkajs/src/consumer/batch.js' {
  import type { FetchedMessage } from 'kafkajs/src/cluster/index.js';
  export default class Batch {
    constructor(topic: string, fetchedOffset: string, partition: { messages: FetchedMessage[] });
    readonly messages: FetchedMessage[];
    readonly messagesWithinOffset: FetchedMessage[];
  }
}

declare module 'kafkajs/src/errors.js' {
  type ErrorClass = new (message?: unknown, options?: Record<string, unknown>) => Error;
  const errors: Readonly<Record<string, ErrorClass>>;
  export default errors;
}

declare module 'kafkajs/src/protocol/error.js' {
  const protocol: { readonly errorCodes: readonly { readonly type: string }[] };
  export default protocol;
}
