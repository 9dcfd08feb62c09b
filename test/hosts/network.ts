/**
 * Hosts as network namespaces on one machine: each has an address, a loopback and a cable of its own to a switch that is
 * a namespace, too, so nothing of the machine's own network changes. A cable can be pulled and put back.
 */
import { execFileSync, type SpawnOptions, spawn } from 'node:child_process';

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });

/** Why this machine cannot make namespaces, or undefined. */
export function whyNoNamespaces(): string | undefined {
  const name = `rf${process.pid}try`;
  try {
    ip('netns', 'add', name);
    try {
      ip('-n', name, 'link', 'add', 'name', 'bridge0', 'type', 'bridge');
      ip('netns', 'exec', name, 'true');
    } finally {
      ip('netns', 'del', name);
    }
    return undefined;
  } catch (thrown) {
    return String((thrown as { stderr?: Buffer }).stderr ?? thrown).trim();
  }
}

export interface Host {
  readonly namespace: string;
  readonly address: string;
}

export class Network {
  /** Interface names hold 15 characters. */
  readonly #prefix = `rf${process.pid % 100_000}`;
  readonly #switch = `${this.#prefix}sw`;
  readonly #hosts: Host[] = [];

  constructor() {
    ip('netns', 'add', this.#switch);
    ip('-n', this.#switch, 'link', 'add', 'name', 'bridge0', 'type', 'bridge');
    ip('-n', this.#switch, 'link', 'set', 'bridge0', 'up');
  }

  addHost(): Host {
    const number = this.#hosts.length + 1;
    const host = { namespace: `${this.#prefix}h${number}`, address: `10.77.0.${number}` };
    ip('netns', 'add', host.namespace);
    this.#hosts.push(host);
    const cable = `cable${number}`;
    ip(
      ...[
        '-n',
        this.#switch,
        'link',
        'add',
        cable,
        'type',
        'veth',
        'peer',
        'name',
        'eth0',
        'netns',
        host.namespace,
      ],
    );
    ip('-n', this.#switch, 'link', 'set', cable, 'master', 'bridge0', 'up');
    ip('-n', host.namespace, 'addr', 'add', `${host.address}/24`, 'dev', 'eth0');
    for (const device of ['lo', 'eth0']) ip('-n', host.namespace, 'link', 'set', device, 'up');
    return host;
  }

  /** Drops packets to and from the host silently. */
  cut(host: Host): void {
    ip('-n', this.#switch, 'link', 'set', this.#cableOf(host), 'down');
  }

  heal(host: Host): void {
    ip('-n', this.#switch, 'link', 'set', this.#cableOf(host), 'up');
  }

  #cableOf(host: Host): string {
    return `cable${this.#hosts.indexOf(host) + 1}`;
  }

  remove(): void {
    for (const { namespace } of this.#hosts) ip('netns', 'del', namespace);
    ip('netns', 'del', this.#switch);
  }
}

/** Starts a program on a host; its process id is that of the program itself. */
export function spawnOn(host: Host, command: string, args: readonly string[], options: SpawnOptions) {
  return spawn('ip', ['netns', 'exec', host.namespace, command, ...args], options);
}
