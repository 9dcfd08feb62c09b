/**
 * PEM files of authorities, client certificate and key, named by variables such as `KAFKA_SSL_CA_FILE`. Another program may
 * replace the files while a process runs, so the settings keep their names, and every new connection reads them again.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { fileText, type Secret, secretOf } from './credentials.ts';
import { messageOf, ReelflowError } from './errors.ts';

export interface TlsFiles {
  /** Authorities to trust instead of the system's. */
  readonly caFile?: string;
  /** The certificate, with its chain, and the key by which the peer recognises this client. */
  readonly client?: {
    readonly certificateFile: string;
    readonly keyFile: string;
    readonly keyPassword?: Secret;
  };
}

/**
 * The files that `<prefix>_CA_FILE`, `<prefix>_CERTIFICATE_FILE` and `<prefix>_KEY_FILE` name. Reads each once, so that a wrong
 * path or a wrong password of the key ends the command at its start.
 * @throws ReelflowError usage, also for a certificate without its key, and the reverse
 */
export function tlsFilesOf(env: Readonly<Record<string, string | undefined>>, prefix: string): TlsFiles {
  const caFile = env[`${prefix}_CA_FILE`];
  const certificateFile = env[`${prefix}_CERTIFICATE_FILE`];
  const keyFile = env[`${prefix}_KEY_FILE`];
  const keyPassword = secretOf(env, `${prefix}_KEY_PASSWORD`);
  if ((certificateFile === undefined) !== (keyFile === undefined)) {
    throw new ReelflowError('usage', 'A client certificate goes with its key', {
      hint: `Set both ${prefix}_CERTIFICATE_FILE and ${prefix}_KEY_FILE.`,
    });
  }
  if (keyFile === undefined && keyPassword !== undefined) {
    throw new ReelflowError('usage', `${prefix}_KEY_PASSWORD is set but ${prefix}_KEY_FILE is not`, {
      hint: `Set ${prefix}_CERTIFICATE_FILE and ${prefix}_KEY_FILE, or unset the password.`,
    });
  }
  const files = {
    ...(caFile !== undefined && { caFile }),
    ...(certificateFile !== undefined &&
      keyFile !== undefined && {
        client: { certificateFile, keyFile, ...(keyPassword !== undefined && { keyPassword }) },
      }),
  };
  readTls(files, prefix);
  return files;
}

/** What the files hold at the moment. */
interface TlsMaterial {
  /** PEM texts, named as Node's TLS options. The key is PKCS #8 and not encrypted; Kafka's Java client reads no other. */
  readonly options: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** The first certificate of the client's chain. */
  readonly certificate?: X509Certificate;
}

/**
 * @param prefix of the variables that name the files, for errors
 * @throws ReelflowError usage, when a file cannot be read, is not what it should be, or the key is another's
 */
export function readTls({ caFile, client }: TlsFiles, prefix = 'KAFKA_SSL'): TlsMaterial {
  const ca = caFile === undefined ? {} : { ca: fileText(`${prefix}_CA_FILE`, caFile) };
  if (client === undefined) return { options: ca };
  const { certificateFile, keyFile, keyPassword } = client;
  const cert = fileText(`${prefix}_CERTIFICATE_FILE`, certificateFile);
  const keyText = fileText(`${prefix}_KEY_FILE`, keyFile);
  const certificate = parsed(
    `${prefix}_CERTIFICATE_FILE`,
    'It must be a PEM certificate, followed by its chain.',
    () => new X509Certificate(cert),
  );
  const key = parsed(
    `${prefix}_KEY_FILE`,
    `It must be a PEM private key. An encrypted one needs ${prefix}_KEY_PASSWORD or ${prefix}_KEY_PASSWORD_FILE.`,
    () =>
      createPrivateKey({
        key: keyText,
        ...(keyPassword !== undefined && { passphrase: keyPassword.reveal() }),
      }),
  );
  if (!certificate.checkPrivateKey(key)) {
    throw new ReelflowError('usage', 'The key is not that of the client certificate', {
      detail: `${certificateFile}, ${keyFile}`,
      hint: `Set ${prefix}_CERTIFICATE_FILE and ${prefix}_KEY_FILE to files of one pair.`,
    });
  }
  return {
    options: { ...ca, cert, key: key.export({ type: 'pkcs8', format: 'pem' }) as string },
    certificate,
  };
}

function parsed<T>(variable: string, hint: string, parse: () => T): T {
  try {
    return parse();
  } catch (thrown) {
    throw new ReelflowError('usage', `The file of ${variable} cannot be used`, {
      detail: messageOf(thrown),
      hint,
      cause: thrown,
    });
  }
}
