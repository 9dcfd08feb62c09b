/** Passes TLS and SASL settings to kafkajs, and finds problems of certificate files that explain a failed connection. */
import { connect } from 'node:net';
import type { ISocketFactory, KafkaConfig } from 'kafkajs';
import tlsSocketFactory from 'kafkajs/src/network/socketFactory.js';
import type { BrokerSecurity } from '../runtime/broker-security.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { readTls, type TlsFiles } from '../runtime/tls-files.ts';
import { BearerTokens, bearerMechanism } from './oauth.ts';
import { withIPv6 } from './seeds.ts';

/**
 * How long before the end of a session kafkajs authenticates again. A broker refuses to do it twice within a second, so a
 * session must last longer than this; requests that wait behind another one of the connection need some of it.
 */
const reauthenticationThresholdMs = 4_000;

/** TLS and SASL as kafkajs takes them. */
export function kafkajsSecurity(
  security: BrokerSecurity = {},
): Pick<KafkaConfig, 'ssl' | 'sasl' | 'reauthenticationThreshold'> & { socketFactory: ISocketFactory } {
  const { tls, sasl } = security;
  return {
    ...(tls !== undefined && { ssl: {} }),
    ...(sasl !== undefined && {
      sasl:
        sasl.mechanism === 'OAUTHBEARER'
          ? bearerMechanism(new BearerTokens(sasl.tokens))
          : {
              mechanism: sasl.mechanism.toLowerCase() as 'plain',
              username: sasl.username,
              password: sasl.password.reveal(),
            },
    }),
    reauthenticationThreshold: reauthenticationThresholdMs,
    socketFactory: withIPv6(tls === undefined ? plainSocket : renewingSocketFactory(tls)),
  };
}

const keepAliveMs = 60_000;

/** Opens a socket like kafkajs, whose own factory would also load TLS. */
const plainSocket: ISocketFactory = ({ host, port, onConnect }) =>
  connect({ host, port }, onConnect).setKeepAlive(true, keepAliveMs);

/** Reads the files again for each connection, so that a renewed certificate needs no restart. */
function renewingSocketFactory(tls: TlsFiles): ISocketFactory {
  const createSocket = tlsSocketFactory();
  return (target) => createSocket({ ...target, ssl: readTls(tls).options });
}

/**
 * The problem of the files of a client certificate, after a connection failed. Unreadable files may be half of a renewal, so
 * waiting can help. An expired certificate stays refused.
 */
export function problemOfFiles(tls: TlsFiles, detail: string): ReelflowError | undefined {
  try {
    const { certificate } = readTls(tls);
    if (certificate === undefined) return undefined;
    const { validFromDate, validToDate, subject } = certificate;
    const isExpired = validToDate.getTime() <= Date.now();
    if (!isExpired && validFromDate.getTime() <= Date.now()) return undefined;
    return new ReelflowError(
      'accessRefused',
      isExpired ? 'The client certificate has expired' : 'The client certificate is not valid yet',
      {
        detail: `${tls.client?.certificateFile} (${subject.replaceAll('\n', ', ')}) ${
          isExpired
            ? `expired at ${validToDate.toISOString()}`
            : `is valid from ${validFromDate.toISOString()}`
        }; ${detail}`,
        hint: isExpired
          ? 'Renew the files of KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE.'
          : 'Check the clock of this machine.',
      },
    );
  } catch (thrown) {
    if (!(thrown instanceof ReelflowError)) throw thrown;
    return new ReelflowError('brokerUnreachable', thrown.message, {
      detail: thrown.detail,
      hint: thrown.hint,
      cause: thrown,
    });
  }
}

/** The broker refused a certificate that is valid by its dates, or requires one and received none. */
export function certificateRefused(tls: TlsFiles, detail: string, cause: unknown): ReelflowError {
  return tls.client === undefined
    ? new ReelflowError('accessRefused', 'The broker requires a client certificate', {
        detail,
        hint: 'Set KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE.',
        cause,
      })
    : new ReelflowError('accessRefused', 'The broker refuses the client certificate', {
        detail: `${detail} (${tls.client.certificateFile})`,
        hint: 'Check that the broker trusts its authority, and that KAFKA_SSL_CERTIFICATE_FILE holds the chain up to that authority.',
        cause,
      });
}
