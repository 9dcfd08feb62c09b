/**
 * Connections of kafkajs 2.2.4 whose opening is not finished. kafkajs asks each broker that it has connected to for its API
 * versions. While it waits, and permanently after an answer that came too late, the broker counts as connected, and each
 * request fails with "Broker not connected". Here such a broker is not connected yet, so the next request opens it.
 * Importing this file changes the connections of all clients.
 */
import Broker from 'kafkajs/src/broker/index.js';

const isConnected = Broker.prototype.isConnected;

Broker.prototype.isConnected = function (this: Broker): boolean {
  return this.versions !== null && isConnected.call(this);
};
