/**
 * Corrects how kafkajs 2.2.4 opens connections. It asks each broker that it connects to for its API versions. While it waits,
 * and permanently after a late answer, it counts the broker as connected, and each request fails with "Broker not connected".
 * Here such a broker is not connected yet, so the next request opens it.
 *
 * The same request reveals a port that does not speak Kafka. kafkajs takes the first bytes of any answer as its length and waits
 * for the rest, or throws uncaught when the length is negative; without an answer it waits for half a minute.
 * Importing this file changes the connections of all clients.
 */
import Broker from 'kafkajs/src/broker/index.js';
import Connection from 'kafkajs/src/network/connection.js';

const isConnected = Broker.prototype.isConnected;

Broker.prototype.isConnected = function (this: Broker): boolean {
  return this.versions !== null && isConnected.call(this);
};

const { apiVersions } = Broker.prototype;
/** Long enough: a broker answers this request from memory. */
const answerMs = 3_000;

Broker.prototype.apiVersions = async function (this: Broker): Promise<object> {
  const { socket } = this.connectionPool.pool[0];
  const silent = new Error('the port does not answer a request of Kafka');
  const timer = setTimeout(() => socket.destroy(silent), answerMs);
  try {
    return await apiVersions.call(this);
  } finally {
    clearTimeout(timer);
  }
};

const { processData } = Connection.prototype;
/** Brokers send no answer of this size. */
const answerBytesMax = 256 * 1024 * 1024;

Connection.prototype.processData = function (this: Connection, bytes: Buffer): void {
  const isStart = this.bytesBuffered === 0 && this.authHandlers === null && bytes.length >= 4;
  if (isStart && bytes.readUInt32BE(0) > answerBytesMax) {
    this.socket.destroy(new Error(`the port does not speak Kafka: ${spokenIn(bytes)}`));
  } else processData.call(this, bytes);
};

/** Names the protocol that an answer begins with, or quotes its first bytes. */
function spokenIn(bytes: Buffer): string {
  // An alert of TLS 1.0 to 1.3.
  if (bytes[0] === 0x15 && bytes[1] === 3) return 'it requires TLS';
  const text = /^[\x20-\x7e]{4,60}/.exec(bytes.toString('latin1'));
  return `it says ${text === null ? bytes.subarray(0, 16).toString('hex') : JSON.stringify(text[0])}`;
}
