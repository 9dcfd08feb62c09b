/** Options by which Flink's tables connect to the broker and the registry. */
import type { Sasl } from '../runtime/broker-security.ts';
import type { Endpoints } from '../runtime/config.ts';
import { Secret } from '../runtime/credentials.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { readTls, type TlsFiles } from '../runtime/tls-files.ts';

/**
 * The PEM texts of a TLS connection. They become part of the job, because Flink does not read renewed files. After a renewal,
 * submit the job again from its last checkpoint.
 */
export function flinkTls(tls: TlsFiles): { ca?: string; chain?: string; key?: Secret } {
  const { ca, cert, key } = readTls(tls).options;
  return {
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { chain: cert }),
    ...(key !== undefined && { key: new Secret(key) }),
  };
}

/** Options of Flink's Kafka connector for the brokers. @param reveal the text of a secret, or what to print in its place */
export function brokerOptions({ brokers, security }: Endpoints, reveal: (secret: Secret) => string) {
  const { tls, sasl } = security ?? {};
  const { ca, chain, key } = tls === undefined ? {} : flinkTls(tls);
  const protocol = `${sasl === undefined ? '' : 'SASL_'}${tls === undefined ? 'PLAINTEXT' : 'SSL'}`;
  return {
    'properties.bootstrap.servers': brokers.join(','),
    ...(security !== undefined && { 'properties.security.protocol': protocol }),
    ...(ca !== undefined && {
      'properties.ssl.truststore.type': 'PEM',
      'properties.ssl.truststore.certificates': ca,
    }),
    ...(chain !== undefined &&
      key !== undefined && {
        'properties.ssl.keystore.type': 'PEM',
        'properties.ssl.keystore.certificate.chain': chain,
        'properties.ssl.keystore.key': reveal(key),
      }),
    ...(sasl !== undefined && saslOptions(sasl, reveal)),
  };
}

function saslOptions(sasl: Sasl, reveal: (secret: Secret) => string) {
  if (sasl.mechanism === 'OAUTHBEARER') {
    throw new ReelflowError('usage', 'Flink jobs cannot use OAUTHBEARER', {
      detail:
        "Kafka's client reads token endpoints and token files only if a Java property of the whole cluster allows each of them.",
      hint: 'Set KAFKA_SASL_MECHANISM to PLAIN or SCRAM, or use a client certificate (KAFKA_SSL_CERTIFICATE_FILE), for flink commands.',
    });
  }
  const module = sasl.mechanism === 'PLAIN' ? 'plain.PlainLoginModule' : 'scram.ScramLoginModule';
  const quoted = (value: string) => `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  return {
    'properties.sasl.mechanism': sasl.mechanism,
    // The connector's jar relocates Kafka's classes.
    'properties.sasl.jaas.config': `org.apache.flink.kafka.shaded.org.apache.kafka.common.security.${module} required username=${quoted(sasl.username)} password=${quoted(reveal(sasl.password))};`,
  };
}

/** Options for values in Avro from the registry. @throws ReelflowError usage, for a token file, or for TLS files of ours */
export function formatOptions(
  prefix: '' | 'value.',
  { registryUrl, registrySecurity: { credentials, tokenFile, tls } = {} }: Endpoints,
  reveal: (secret: Secret) => string,
) {
  if (tokenFile !== undefined || tls !== undefined) {
    throw new ReelflowError('usage', 'Flink jobs reach the registry with a user and a password only', {
      detail: 'A job cannot read renewed tokens or certificates.',
      hint: 'Set SCHEMA_REGISTRY_USERNAME for flink commands, and unset SCHEMA_REGISTRY_BEARER_TOKEN_FILE and SCHEMA_REGISTRY_SSL_….',
    });
  }
  return {
    [`${prefix}format`]: 'avro-confluent',
    [`${prefix}avro-confluent.url`]: registryUrl,
    ...(credentials !== undefined && {
      [`${prefix}avro-confluent.basic-auth.credentials-source`]: 'USER_INFO',
      [`${prefix}avro-confluent.basic-auth.user-info`]: `${credentials.username}:${reveal(credentials.password)}`,
    }),
  };
}
