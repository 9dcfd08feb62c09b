/**
 * Addresses of brokers for kafkajs, which takes everything before the first colon as the host. So an IPv6 address gets another
 * separator, and `withIPv6` restores its colons when it opens a socket.
 */
import type { ISocketFactory } from 'kafkajs';

/** Occurs in no host name. */
const separator = '|';

/** @param address host:port or [IPv6]:port */
export function seedOf(address: string): string {
  const [, host, port] = /^\[(.+)\]:(\d+)$/.exec(address) ?? [];
  return host === undefined ? address : `${host.replaceAll(':', separator)}:${port}`;
}

/** Opens sockets to hosts as `seedOf` writes them, and to those that brokers advertise. */
export function withIPv6(createSocket: ISocketFactory): ISocketFactory {
  return ({ host, ...target }) => createSocket({ ...target, host: host.replaceAll(separator, ':') });
}
