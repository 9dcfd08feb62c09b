/** Checks whether a port is free and whether a broker or a registry answers. */
import { connect, createServer } from 'node:net';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { exchange } from '../../runtime/registry-http.ts';
import { registryAccess } from '../../runtime/registry-security.ts';

/** The result of a check, or why there is none. */
export type Probe<T> = { readonly found: T } | { readonly why: string };

/** Whether a TCP server could listen on 127.0.0.1 at this port now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => {
      if (systemCodeOf(error) === 'EADDRINUSE') resolve(false);
      else
        reject(
          new ReelflowError('services', `Port ${port} cannot be used`, {
            detail: messageOf(error),
            hint: 'Choose a port above 1023.',
          }),
        );
    });
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Consecutive free ports below the range for outgoing connections: otherwise a client could take the port of a killed
 * broker before its restart.
 */
export async function freePorts(count: number): Promise<number[]> {
  for (;;) {
    const first = 20_000 + Math.floor(Math.random() * 10_000);
    const ports = Array.from({ length: count }, (_, i) => first + i);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return ports;
  }
}

/** Whether a Kafka broker answers an ApiVersions request without an error. */
export function answersKafka(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    // size, api key 18 (ApiVersions), version 0, correlation id, client id (null)
    const request = Buffer.from([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    let answer = Buffer.alloc(0);
    const socket = connect({ port, host });
    const end = (healthy: boolean) => {
      socket.destroy();
      resolve(healthy);
    };
    socket.setTimeout(2000, () => end(false));
    socket.on('error', () => end(false));
    socket.on('close', () => end(false));
    socket.on('connect', () => socket.write(request));
    socket.on('data', (data) => {
      answer = Buffer.concat([answer, data]);
      // size, correlation id, error code
      if (answer.length >= 10) end(answer.readInt32BE(4) === 1 && answer.readInt16BE(8) === 0);
    });
  });
}

/** Whether a schema registry answers at this URL and accepts the credentials of this client. */
export async function answersRegistry(url: string, access = registryAccess()): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(5_000);
    const { status } = await exchange(`${url.replace(/\/$/, '')}/subjects`, {
      method: 'GET',
      ...access.request(),
      signal,
    });
    return status === 200;
  } catch {
    return false;
  }
}

/** The last lines of a text, for an error's detail. */
export function lastLines(text: string, count: number): string {
  return text
    .trimEnd()
    .split(/[\r\n]+/)
    .slice(-count)
    .join('\n');
}

/** The lines of a log that most likely explain a failed start: the first errors, else the last lines. */
export function causeLines(text: string): string {
  const causes = text.split('\n').filter((line) => /\b(ERROR|FATAL)\b|Exception|Error:|Caused by/.test(line));
  return causes.length > 0 ? causes.slice(0, 6).join('\n') : lastLines(text, 6);
}
