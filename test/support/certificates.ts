/** A certificate authority of a test, made with OpenSSL, and what it issues: PEM files. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Why no authority can be made here, or undefined. */
export function withoutOpenssl(): string | undefined {
  try {
    execFileSync('openssl', ['version'], { stdio: 'pipe' });
    return undefined;
  } catch {
    return 'openssl is not installed';
  }
}

export interface Pair {
  readonly certificate: string;
  readonly key: string;
}

export class Authority {
  readonly #folder: string;
  /** Its certificate. */
  readonly certificate: string;

  constructor(folder: string, name: string) {
    this.#folder = join(folder, name);
    mkdirSync(this.#folder);
    this.certificate = join(this.#folder, 'ca.pem');
    const config = `[ca]
default_ca = this
[this]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = any
rand_serial = yes
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
`;
    writeFileSync(join(this.#folder, 'ca.conf'), config);
    writeFileSync(join(this.#folder, 'index.txt'), '');
    const made = ['-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', `/CN=${name}`];
    this.#openssl('req', '-x509', ...ellipticKey, '-nodes', ...made);
  }

  /** @param years what the certificate is valid for, this and the next by default */
  issue(
    name: string,
    options: { years?: readonly [number, number]; address?: string; keyPassword?: string } = {},
  ): Pair {
    const { address, keyPassword } = options;
    const [first, last] = options.years ?? [new Date().getUTCFullYear() - 1, new Date().getUTCFullYear() + 1];
    const files = ['-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`];
    const names = address === undefined ? [] : ['-addext', `subjectAltName=IP:${address}`];
    const secrecy = keyPassword === undefined ? ['-nodes'] : ['-passout', `pass:${keyPassword}`];
    this.#openssl('req', '-new', ...ellipticKey, ...secrecy, ...files, ...names);
    const dates = ['-startdate', `${first}0101000000Z`, '-enddate', `${last}1231000000Z`];
    const issuer = ['-config', 'ca.conf', '-cert', 'ca.pem', '-keyfile', 'ca.key'];
    this.#openssl(
      'ca',
      '-batch',
      '-notext',
      ...issuer,
      ...dates,
      '-in',
      `${name}.csr`,
      '-out',
      `${name}.pem`,
    );
    return { certificate: join(this.#folder, `${name}.pem`), key: join(this.#folder, `${name}.key`) };
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.#folder, stdio: 'pipe' });
  }
}

const ellipticKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

/** A key store as Kafka reads it from one PEM file: key, certificate. */
export const keyStoreOf = ({ certificate, key }: Pair): string =>
  readFileSync(key, 'utf8') + readFileSync(certificate, 'utf8');
