/** The life of a member: one mode at a time, and the transitions between them. */

type Mode =
  /** Preparing topics, schemas and stores, and joining the group. */
  | 'starting'
  | 'running'
  /** Working up to fixed end offsets, then stopping. */
  | 'finishing'
  /** A failure ends the member. */
  | 'failed'
  /** Closing shards and leaving the group. */
  | 'stopping'
  | 'stopped';

const next: Readonly<Record<Mode, readonly Mode[]>> = {
  starting: ['running', 'failed', 'stopping'],
  running: ['finishing', 'failed', 'stopping'],
  finishing: ['failed', 'stopping'],
  failed: ['stopping'],
  stopping: ['stopped'],
  stopped: [],
};

export class MemberMode {
  #mode: Mode = 'starting';

  get current(): Mode {
    return this.#mode;
  }

  /** Whether shards may be opened and fed. */
  get isActive(): boolean {
    return this.#mode === 'starting' || this.#mode === 'running' || this.#mode === 'finishing';
  }

  /** @returns false, without any effect, if the transition is not legal */
  to(mode: Mode): boolean {
    if (!next[this.#mode].includes(mode)) return false;
    this.#mode = mode;
    return true;
  }
}
