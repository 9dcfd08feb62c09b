/**
 * kafkajs 2.2.4 keeps moments as values of `Date.now()`. When the wall clock steps back by an hour, it would end unanswered
 * requests, send throttled requests and send heartbeats an hour late. This file keeps these moments by the monotonic clock.
 * Importing it changes all clients.
 */
import BrokerPool from 'kafkajs/src/cluster/brokerPool.js';
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';
import RequestQueue from 'kafkajs/src/network/requestQueue/index.js';
import SocketRequest from 'kafkajs/src/network/requestQueue/socketRequest.js';

/** The property holds what `Date.now()` would have been at that moment, had the wall clock always been as it is now. */
function keepMonotonic({ prototype }: { readonly prototype: object }, property: string): void {
  const moments = new WeakMap<object, number>();
  Object.defineProperty(prototype, property, {
    get(this: object) {
      const monotonic = moments.get(this);
      return monotonic === undefined ? null : monotonic - performance.now() + Date.now();
    },
    set(this: object, moment: number | null) {
      if (moment === null) moments.delete(this);
      else moments.set(this, moment - Date.now() + performance.now());
    },
  });
}

keepMonotonic(SocketRequest, 'sentAt');
keepMonotonic(RequestQueue, 'throttledUntil');
keepMonotonic(ConsumerGroup, 'lastRequest');
keepMonotonic(BrokerPool, 'metadataExpireAt');
