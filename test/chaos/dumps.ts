/**
 * Dumps that come one after the other: a whole first one, then later ones with rows that were corrected, came twice, are
 * new, or fit no rule. All rows ever replayed are kept behind each other, in order: gold must equal their batch computation.
 */
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generate } from '../../producers/synthetic/synthetic.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import type { Chance } from './chance.ts';

/** Factor between neighbouring ids, so that a few thousand titles lie in all partitions. */
const spread = 1_499;

const corrections: Readonly<Partial<Record<DatasetName, (columns: string[], chance: Chance) => void>>> = {
  'title.ratings': (columns, chance) => {
    columns[1] = `${chance.int(1, 9)}.${chance.int(0, 9)}`;
    columns[2] = String(chance.int(5, 2_000_000));
    if (chance.next() < 0.01) columns[1] = '11.0';
  },
  'title.basics': (columns, chance) => {
    columns[5] = chance.next() < 0.1 ? '\\N' : String(chance.int(1900, 2030));
    columns[8] = chance.pick(['Drama', 'Comedy', 'Drama,Comedy', 'Western', '\\N']);
  },
  'title.principals': (columns, chance) => {
    columns[2] = `nm${String(chance.int(1, 40) * spread).padStart(7, '0')}`;
  },
  'title.akas': (columns, chance) => {
    columns[3] = chance.pick(['DE', 'FR', 'XWW', 'US', '\\N']);
  },
  'name.basics': (columns, chance) => {
    columns[1] = `Name ${chance.int(1, 1_000_000)}`;
  },
};

export class Dumps {
  readonly #folder: string;
  readonly #chance: Chance;
  readonly #headers = new Map<DatasetName, string>();
  readonly #rows = new Map<DatasetName, string[]>();
  #count = 0;

  private constructor(folder: string, chance: Chance) {
    this.#folder = folder;
    this.#chance = chance;
  }

  static async make(folder: string, titles: number, seed: number, chance: Chance): Promise<Dumps> {
    const dumps = new Dumps(folder, chance);
    const raw = join(folder, 'raw');
    await generate({ titles, seed: seed % 2 ** 31, out: raw });
    mkdirSync(dumps.all, { recursive: true });
    for (const dataset of datasetNames) {
      const text = readFileSync(join(raw, `${dataset}.tsv`), 'utf8').replace(
        /\b(tt|nm)(\d{7,9})\b/g,
        (_, prefix: string, digits: string) => {
          const number = Number(digits);
          // Synthetic ids begin again at these numbers. Divided by the factor they leave other rests, so no two ids become one.
          const first = [10_000_000, 1_000_000, 0].find((each) => number >= each) as number;
          return prefix + String(first + (number - first) * spread).padStart(7, '0');
        },
      );
      const [header = '', ...rows] = text.trimEnd().split('\n');
      dumps.#headers.set(dataset, header);
      dumps.#rows.set(dataset, rows);
      writeFileSync(join(dumps.all, `${dataset}.tsv`), `${header}\n`);
    }
    return dumps;
  }

  /** Folder of everything that was given out so far. */
  get all(): string {
    return join(this.#folder, 'all');
  }

  /** Dumps that were given out. */
  get count(): number {
    return this.#count;
  }

  /** Writes the next dump. @param share of the rows of each dataset that a later dump holds @returns its folder */
  next(share: number): string {
    const folder = join(this.#folder, `dump-${this.#count}`);
    mkdirSync(folder);
    for (const dataset of datasetNames) {
      const rows = this.#rows.get(dataset) ?? [];
      const correct = corrections[dataset];
      const own = this.#count === 0 ? rows : correct === undefined ? [] : this.#later(rows, share, correct);
      if (own.length === 0) continue;
      const text = `${own.join('\n')}\n`;
      writeFileSync(join(folder, `${dataset}.tsv`), `${this.#headers.get(dataset)}\n${text}`);
      appendFileSync(join(this.all, `${dataset}.tsv`), text);
    }
    this.#count += 1;
    return folder;
  }

  #later(
    rows: readonly string[],
    share: number,
    correct: (columns: string[], chance: Chance) => void,
  ): string[] {
    const chance = this.#chance;
    return rows.flatMap((row) => {
      if (chance.next() >= share) return [];
      const columns = row.split('\t');
      correct(columns, chance);
      const corrected = columns.join('\t');
      const fate = chance.next();
      if (fate < 0.1) return [row, corrected];
      if (fate < 0.2) return [corrected, corrected];
      return fate < 0.3 ? [row] : [corrected];
    });
  }
}
