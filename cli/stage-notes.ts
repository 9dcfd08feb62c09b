/** Sentences on stages without members: whether they ever ran, and on which machine; and the state that shows it. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Broker, clusterIdOf } from '../kafka/client.ts';
import type { GroupLag } from '../monitor/lag.ts';
import {
  historyText,
  type StageName,
  stageHistory,
  stageOf,
  startCommands,
} from '../monitor/stage-history.ts';
import type { Places } from '../runtime/config.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { namespaceFolder, type TopicNames } from '../topics/catalog.ts';
import { placesText } from './hint.ts';

/** The folder in which the stages of a pipeline keep their state. @throws ReelflowError brokerUnreachable */
export async function stateFolderOf(broker: Broker, { state, namespace }: Places): Promise<string> {
  return join(state, await clusterIdOf(broker), namespaceFolder(namespace));
}

/**
 * Whether the state folder of this machine holds state of a stage. The folder depends on the cluster's id, so it is unknown until
 * a broker answers.
 */
export class LocalState {
  readonly #broker: Broker;
  readonly places: Places;
  #folder: string | undefined;

  constructor(broker: Broker, places: Places) {
    this.#broker = broker;
    this.places = places;
  }

  /** Finds the folder; call it before `has`. Without an answer of a broker it finds none. */
  async find(): Promise<this> {
    try {
      this.#folder = await stateFolderOf(this.#broker, this.places);
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError)) throw thrown;
    }
    return this;
  }

  has(stage: StageName): boolean {
    if (this.#folder === undefined || !existsSync(this.#folder)) return false;
    const isOfStage = stage === 'sink' ? /^sink\.duckdb$/ : /^shard-\d+\..*\.duckdb$/;
    return readdirSync(this.#folder).some((name) => isOfStage.test(name));
  }
}

/** A sentence on a stage without members; undefined for any other group. */
export function stageNote(names: TopicNames, group: GroupLag, local: LocalState): string | undefined {
  const stage = stageOf(names, group);
  const text = stage && historyText(stageHistory(group, local.has(stage)));
  if (stage === undefined || text === undefined) return undefined;
  const subject = stage === 'sink' ? 'The sink' : 'The processor stage';
  return `${subject} ${text}. Run \`${startCommands[stage]}${placesText(local.places)}\`.`;
}
