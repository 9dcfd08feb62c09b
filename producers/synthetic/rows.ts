/**
 * The rows of the synthetic datasets: the row count of each dataset, and a function that writes row n into a buffer. It
 * copies bytes of prepared words, without strings or objects. The statistics are those of the full dumps.
 */
import { ReelflowError } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import {
  chanceOf,
  coprimeStride,
  cycle,
  drawTable,
  fallingWeights,
  fameOf,
  has,
  idLayout,
  next,
  orderingOf,
  quantile,
  rowCountOf,
  scaled,
  share,
  titleOf,
} from './chance.ts';
import { comma, newline, put, putInt, putNameId, putNull, putTitleId, tab, zero } from './row-bytes.ts';
import * as words from './words.ts';

/** The rows of one dataset. `write` puts row n into a buffer at `at`. @returns the position after it */
export interface Table {
  readonly rows: number;
  readonly write: (out: Uint8Array, at: number, row: number) => number;
}

/** The layout of ids has room for this many titles. */
const titlesMax = 30_000_000;

const none = words.poolOf(['None']);
const originalType = words.poolOf(['original']);
const fullDump = { titles: 12.3, names: 15.1, people: 7.0 };
/** One person in this many has credits but no row in name.basics. */
const missingNameEvery = 101;
/** This share of credits goes to the person of the previous row: for example, an actor who also writes. */
const creditAgain = 1 / 12;

const genresDraw = drawTable(fallingWeights(words.genres.count, 4, 1.5), 1 << 18);
const typeDraw = drawTable(words.otherTypeWeights);
const categoryDraw = drawTable(words.categoryWeights);
const regionDraw = drawTable(fallingWeights(words.regions.count, 9, 1.9));
const characterDraw = drawTable(fallingWeights(words.characters.count, 3, 0.9));
const jobDraw = drawTable(fallingWeights(words.jobs.count, 1.5, 1.2));
const firstYear = 1894;
const yearDraw = drawTable(Array.from({ length: 2027 - firstYear }, (_, n) => 1.055 ** n));
const tenthsDraw = drawTable(
  Array.from({ length: 91 }, (_, n) => {
    const away = (n + 10 - 72) / (n + 10 < 72 ? 15 : 11);
    return Math.exp((-away * away) / 2) + 0.004;
  }),
);
/** Minutes at shares of the titles that have a runtime. */
const runtimeDraw = Uint16Array.from({ length: 4096 }, (_, n) =>
  quantile(
    [
      [0, 1],
      [0.1, 8],
      [0.25, 21],
      [0.5, 43],
      [0.7, 60],
      [0.85, 92],
      [0.97, 130],
      [0.999, 360],
      [1, 1440],
    ],
    n / 4096,
  ),
);
/** Natural logarithm of the votes at shares of the rated titles. */
const votesLog = (
  [
    [0, 5],
    [0.1, 9],
    [0.25, 19],
    [0.5, 64],
    [0.75, 280],
    [0.9, 1500],
    [0.95, 4242],
    [0.99, 36_000],
    [0.999, 260_000],
    [1, 2_700_000],
  ] as const
).map(([at, votes]) => [at, Math.log(votes)] as const);

/** All seven datasets for a number of titles. */
export function syntheticTables(titles: number, seed: number): Record<DatasetName, Table> {
  if (!Number.isInteger(titles) || titles < 1 || titles > titlesMax) {
    throw new ReelflowError('usage', 'Invalid number of titles', {
      detail: `Got ${titles}; expected 1 to ${titlesMax}.`,
      hint: 'Give an integer with --titles.',
    });
  }
  let salts = seed | 0;
  const salt = () => {
    salts = next(salts);
    return salts;
  };
  const titleId = idLayout(titles, 3.3, salt());

  const rated = cycle(1009, salt(), (at) => (at < 0.133 ? 1 : 0));
  const credits = cycle(4093, salt(), (at) =>
    quantile(
      [
        [0, 0],
        [0.0999, 0.99],
        [0.1, 1],
        [0.2, 3],
        [0.4, 7],
        [0.6, 10.7],
        [0.8, 11.3],
        [0.95, 15],
        [1, 36],
      ],
      at,
    ),
  );
  const akas = cycle(4091, salt(), (at) =>
    quantile(
      [
        [0, 1],
        [0.35, 2],
        [0.6, 3.2],
        [0.8, 9.3],
        [0.95, 10.9],
        [0.99, 20],
        [1, 66],
      ],
      at,
    ),
  );
  const episodes = cycle(1013, salt(), (at) => (at < 9.5 / 12.3 ? 1 : 0));
  const seriesInCycle = Int32Array.from({ length: 1013 }, (_, n) => n)
    .filter((n) => !has(episodes, n))
    .slice(0, 30);
  const isSeries = new Uint8Array(1013);
  for (const n of seriesInCycle) isSeries[n] = 1;

  // People are numbered by id. `cast` of them have credits; a stride maps a rank of fame to a person.
  const names = Math.round((titles * fullDump.names) / fullDump.titles);
  const people = names + Math.floor((names + (missingNameEvery >> 1) - 1) / (missingNameEvery - 1));
  const nameId = idLayout(people, 1.2, salt());
  const fame = fameOf(
    titles,
    (titles * fullDump.people) / fullDump.titles,
    rowCountOf(credits, titles) * (1 - creditAgain),
  );
  const cast = Math.min(people, fame.cast);
  const stride = coprimeStride(people);
  const personOf = (h: number): number => {
    const product = Math.min(cast - 1, fame.rank((h >>> 0) * 2.3283064365386963e-10)) * stride;
    return nameId(product - Math.floor(product / people) * people);
  };

  const basicsSalt = salt();
  const basics: Table = {
    rows: titles,
    write(out, at, row) {
      const h1 = chanceOf(basicsSalt, row);
      const h2 = next(h1);
      const h3 = next(h2);
      const episode = has(episodes, row);
      const series = isSeries[row % 1013] === 1;
      at = putTitleId(out, at, titleId(row));
      out[at++] = tab;
      at = put(out, at, words.titleTypes, episode ? 0 : series ? 1 : 2 + (typeDraw[h1 >>> 16] as number));
      out[at++] = tab;
      const titleStart = at;
      if (row % 9973 === 7) at = put(out, at, none, 0);
      else {
        at = put(out, at, words.titles, scaled(h2, words.titles.count));
        if (h1 & 1) {
          out[at++] = 32;
          out[at++] = 35;
          at = putInt(out, at, 1 + (h3 & 1023));
        }
      }
      const titleEnd = at;
      out[at++] = tab;
      if ((h1 & 14) === 2) at = put(out, at, words.foreign, scaled(next(h2 ^ 1), words.foreign.count));
      else for (let i = titleStart; i < titleEnd; i++) out[at++] = out[i] as number;
      out[at++] = tab;
      out[at++] = (h3 & 0xffff) < share(0.032) ? zero + 1 : zero;
      out[at++] = tab;
      const h4 = next(h3);
      const year = firstYear + (yearDraw[h4 >>> 16] as number);
      if (row % 99_991 === 11) at = putInt(out, at, 2115);
      else if ((h4 & 0xffff) < share(0.118)) at = putNull(out, at);
      else at = putInt(out, at, year);
      out[at++] = tab;
      if (series && (h3 & 0x30000) !== 0) at = putInt(out, at, year + ((h3 >>> 18) & 7));
      else at = putNull(out, at);
      out[at++] = tab;
      const h5 = next(h4);
      if (row % 1_000_003 === 13) at = putInt(out, at, 51_420);
      else if ((h5 & 0xffff) < share(0.64)) at = putNull(out, at);
      else at = putInt(out, at, runtimeDraw[h5 >>> 20] as number);
      out[at++] = tab;
      const h6 = next(h5);
      if (h6 >>> 18 < share(0.043) >>> 2) at = putNull(out, at);
      else at = put(out, at, words.genres, genresDraw[h6 & 0x3ffff] as number);
      out[at++] = newline;
      return at;
    },
  };

  const ratingsSalt = salt();
  const ratings: Table = {
    rows: rowCountOf(rated, titles),
    write(out, at, row) {
      const h1 = chanceOf(ratingsSalt, row);
      at = putTitleId(out, at, titleId(titleOf(rated, row)));
      out[at++] = tab;
      const tenths = 10 + (tenthsDraw[h1 >>> 16] as number);
      at = putInt(out, at, Math.floor(tenths / 10));
      out[at++] = 46;
      out[at++] = zero + (tenths % 10);
      out[at++] = tab;
      at = putInt(out, at, Math.floor(Math.exp(quantile(votesLog, (next(h1) >>> 0) / 2 ** 32))));
      out[at++] = newline;
      return at;
    },
  };

  const principalsSalt = salt();
  const principals: Table = {
    rows: rowCountOf(credits, titles),
    write(out, at, row) {
      const ordering = orderingOf(credits, row);
      const h1 = chanceOf(principalsSalt, row);
      const h2 = next(h1);
      const again = ordering > 1 && h2 >>> 16 < share(creditAgain);
      at = putTitleId(out, at, titleId(titleOf(credits, row)));
      out[at++] = tab;
      at = putInt(out, at, ordering);
      out[at++] = tab;
      at = putNameId(out, at, personOf(again ? chanceOf(principalsSalt, row - 1) : h1));
      out[at++] = tab;
      const h3 = next(h2);
      const category = categoryDraw[h3 >>> 16] as number;
      const acting = category < words.actingCategories;
      at = put(out, at, words.categories, category);
      out[at++] = tab;
      if (!acting && (h3 & 0xffff) < share(0.418))
        at = put(out, at, words.jobs, jobDraw[h2 & 0xffff] as number);
      else at = putNull(out, at);
      out[at++] = tab;
      if (acting && (h3 & 0xffff) < share(0.899)) {
        at = put(out, at, words.characters, characterDraw[h2 & 0xffff] as number);
      } else at = putNull(out, at);
      out[at++] = newline;
      return at;
    },
  };

  const akasSalt = salt();
  const akasTable: Table = {
    rows: rowCountOf(akas, titles),
    write(out, at, row) {
      const ordering = orderingOf(akas, row);
      const original = ordering === 1;
      const h1 = chanceOf(akasSalt, row);
      const h2 = next(h1);
      at = putTitleId(out, at, titleId(titleOf(akas, row)));
      out[at++] = tab;
      at = putInt(out, at, ordering);
      out[at++] = tab;
      const pool = h1 & 1 ? words.titles : words.foreign;
      at = put(out, at, pool, scaled(h2, pool.count));
      out[at++] = tab;
      const h3 = next(h2);
      if (original) at = putNull(out, at);
      else at = put(out, at, words.regions, regionDraw[h3 >>> 16] as number);
      out[at++] = tab;
      if (original || (h3 & 0xffff) < share(0.4)) at = putNull(out, at);
      else at = put(out, at, words.languages, scaled(next(h3), words.languages.count));
      out[at++] = tab;
      const odd = h1 >>> 16;
      if (original) at = put(out, at, originalType, 0);
      else if (odd < share(0.55)) at = putNull(out, at);
      else at = put(out, at, words.akaTypes, odd < share(0.95) ? 0 : odd % words.akaTypes.count);
      out[at++] = tab;
      if (original || (h1 & 0xfe) !== 2) at = putNull(out, at);
      else at = put(out, at, words.akaAttributes, odd % words.akaAttributes.count);
      out[at++] = tab;
      if (row % 10_007 === 9) at = putNull(out, at);
      else out[at++] = original ? zero + 1 : zero;
      out[at++] = newline;
      return at;
    },
  };

  const putPeople = (out: Uint8Array, at: number, h: number, count: number): number => {
    for (let n = 0; n < count; n++) {
      if (n > 0) out[at++] = comma;
      h = next(h);
      at = putNameId(out, at, personOf(h));
    }
    return at;
  };
  const crewSalt = salt();
  const crew: Table = {
    rows: titles,
    write(out, at, row) {
      const h1 = chanceOf(crewSalt, row);
      const h2 = next(h1);
      at = putTitleId(out, at, titleId(row));
      out[at++] = tab;
      if ((h1 & 0xffff) < share(0.43)) at = putNull(out, at);
      else at = putPeople(out, at, h1, 1 + ((h1 >>> 16) % 16 === 0 ? 1 : 0));
      out[at++] = tab;
      if ((h2 & 0xffff) < share(0.48)) at = putNull(out, at);
      else at = putPeople(out, at, h2, 1 + ((h2 >>> 16) & 3));
      out[at++] = newline;
      return at;
    },
  };

  const episodeSalt = salt();
  const cycles = Math.max(1, Math.floor(titles / episodes.length));
  const episode: Table = {
    rows: rowCountOf(episodes, titles),
    write(out, at, row) {
      const h1 = chanceOf(episodeSalt, row);
      const h2 = next(h1);
      const parent =
        scaled(h2, cycles) * episodes.length + (seriesInCycle[scaled(h1, seriesInCycle.length)] as number);
      at = putTitleId(out, at, titleId(titleOf(episodes, row)));
      out[at++] = tab;
      at = putTitleId(out, at, titleId(parent));
      out[at++] = tab;
      const unnumbered = (h1 & 0xffff) < share(0.2);
      at = unnumbered ? putNull(out, at) : putInt(out, at, 1 + ((h1 >>> 16) & (h2 >>> 16) & 31));
      out[at++] = tab;
      at = unnumbered ? putNull(out, at) : putInt(out, at, 1 + ((h1 >>> 21) & 31) * (1 + (h2 & 7)));
      out[at++] = newline;
      return at;
    },
  };

  const namesSalt = salt();
  const namesTable: Table = {
    rows: names,
    write(out, at, row) {
      const h1 = chanceOf(namesSalt, row);
      const h2 = next(h1);
      const person = row + Math.floor((row + (missingNameEvery >> 1)) / (missingNameEvery - 1));
      at = putNameId(out, at, nameId(person));
      out[at++] = tab;
      at = put(out, at, words.givenNames, scaled(h1, words.givenNames.count));
      at = put(out, at, words.familyNames, scaled(h2, words.familyNames.count));
      out[at++] = tab;
      const h3 = next(h2);
      const born = 1850 + (h3 & 127);
      const known = h3 >>> 16;
      at = known < share(0.045) ? putInt(out, at, born) : putNull(out, at);
      out[at++] = tab;
      at = known < share(0.016) ? putInt(out, at, born + 20 + ((h3 >>> 7) & 63)) : putNull(out, at);
      out[at++] = tab;
      const h4 = next(h3);
      const profession = h4 & 0xffff;
      if (profession < share(0.17)) at = putNull(out, at);
      else if (profession >= share(0.19))
        at = put(out, at, words.professions, (h4 >>> 16) % words.professions.count);
      out[at++] = tab;
      let h = next(h4);
      const count = (h & 0xffff) < share(0.12) ? 0 : 1 + ((h >>> 16) & 3);
      if (count === 0) at = putNull(out, at);
      for (let n = 0; n < count; n++) {
        if (n > 0) out[at++] = comma;
        h = next(h);
        at = putTitleId(out, at, titleId(scaled(h, titles)));
      }
      out[at++] = newline;
      return at;
    },
  };

  return {
    'title.basics': basics,
    'title.ratings': ratings,
    'title.principals': principals,
    'title.akas': akasTable,
    'title.crew': crew,
    'title.episode': episode,
    'name.basics': namesTable,
  };
}
