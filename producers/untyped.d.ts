// kafkajs' own produce response, version 2.2.4 exactly, pinned in package.json.
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
