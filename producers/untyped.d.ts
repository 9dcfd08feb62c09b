// kafkajs' own encoder and produce response, version 2.2.4 exactly, pinned in package.json.
declare module 'kafkajs/src/protocol/encoder.js' {
  export default class Encoder {
    constructor(bytes?: number);
    writeInt16(value: number): this;
    writeInt32(value: number): this;
    writeString(value: string | null): this;
    writeBuffer(value: Buffer): this;
  }
}

declare module 'kafkajs/src/protocol/requests/produce/v7/response.js' {
  interface ProduceResponse {
    topics: {
      topicName: string;
      partitions: { partition: number; errorCode: number; baseOffset: string }[];
    }[];
  }
  const response: {
    decode(raw: Buffer): Promise<ProduceResponse>;
    /** Throws KafkaJSProtocolError for the first partition with an error. */
    parse(response: ProduceResponse): Promise<ProduceResponse>;
  };
  export default response;
}
