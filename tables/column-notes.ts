/**
 * The meaning of the gold columns. A column name means the same in every table, so there is one dictionary; a declaration
 * adds notes for columns of its own. The notes are
 * in the metadata of each Parquet file and in the output of `gold show` and `gold report`.
 */
import { genreColumns, standardised } from './training-features.ts';

export interface ColumnNote {
  readonly about: string;
  /** Absent for names and other texts. */
  readonly unit?: string;
}

/** The key under which a Parquet file carries its notes: `{ about, columns: { name: ColumnNote } }` as JSON. */
export const notesKey = 'reelflow';

export const columnNotes: Readonly<Record<string, ColumnNote>> = {
  tconst: { about: 'IMDb id of a title.' },
  primaryTitle: { about: 'Name of a title that is used most; null if it has no row in title.basics.' },
  originalTitle: { about: 'Name of a title in its own language; null if it has no row in title.basics.' },
  weighted_rating: {
    about:
      'numVotes/(numVotes + m) · averageRating + m/(numVotes + m) · C. The manifest states m, a number of votes, and C, the mean of all ratings.',
    unit: 'stars, 1 to 10',
  },
  rank: { about: 'Place among the titles of a type, from 1.', unit: 'rank' },
  parentTconst: { about: 'IMDb id of a series.' },
  seasonNumber: { about: 'Number of a season; null for episodes without one.', unit: 'season' },
  total_episodes: { about: 'Number of rated episodes.', unit: 'episodes' },
  best_episode: {
    about: 'IMDb id of the best episode: by rating, then votes, then the smaller id.',
  },
  best_rating: { about: 'Rating of the best episode.', unit: 'stars, 1 to 10' },
  worst_episode: { about: 'IMDb id of the last episode in the same ranking.' },
  worst_rating: { about: 'Rating of the worst episode.', unit: 'stars, 1 to 10' },
  titleType: { about: 'Type of a title, such as movie or tvEpisode; null without a row in title.basics.' },
  isAdult: { about: 'Whether the title is for adults; null without a row in title.basics.' },
  runtimeMinutes: { about: 'Running time of a title.', unit: 'minutes' },
  averageRating: { about: 'Rating of a title.', unit: 'stars, 1 to 10' },
  numVotes: { about: 'Votes on a title.', unit: 'votes' },
  principals: { about: 'Credits of people on the title.', unit: 'credits' },
  people: { about: 'Distinct people with a credit on the title.', unit: 'people' },
  akas: { about: 'Alternative titles of the title.', unit: 'alternative titles' },
  regions: { about: 'Distinct regions of its alternative titles.', unit: 'regions' },
  numVotes_log10: { about: 'Base-10 logarithm of numVotes; 0 without votes.', unit: 'powers of ten' },
  ...Object.fromEntries(
    standardised.flatMap((column) => [
      [
        `${column}_standardised`,
        {
          about: `(${column} − mean) / deviation, with both values in the manifest; 0 if ${column} is null.`,
          unit: 'deviations',
        },
      ],
      [`${column}_missing`, { about: `Whether ${column} is null.` }],
    ]),
  ),
  genres_missing: { about: 'Whether genres is null.' },
  ...Object.fromEntries(
    [...genreColumns].map(([column, genre]) => [column, { about: `Whether ${genre} is among the genres.` }]),
  ),
  genre_other: { about: 'Whether the title has a genre without a column of its own.' },
  split: { about: 'train, validation or test, by a hash of tconst: the same in every snapshot.' },
  genres: {
    about:
      'One to three genres, joined by commas as IMDb writes them; a list in title_features and titles; null if there are none.',
  },
  startYear: { about: 'Year in which a title was first shown.', unit: 'year' },
  day: { about: 'Date of the dump, in UTC.' },
  decade: { about: 'First year of the decade: startYear rounded down to tens.', unit: 'year' },
  nconst: { about: 'IMDb id of a person.' },
  primaryName: { about: 'Name by which the person is best known; null if it is unknown.' },
  genre: { about: 'A single genre.' },
  language: { about: 'Language of an alternative title, as IMDb writes it.' },
  region: { about: 'Region of an alternative title, as IMDb writes it.' },
  total_titles: { about: 'Number of rated titles, each counted once.', unit: 'titles' },
  total_votes: { about: 'Votes on these titles.', unit: 'votes' },
  total_credits: { about: 'Credits of the person on rated titles.', unit: 'credits' },
  total_akas: { about: 'Alternative titles of rated titles for the region.', unit: 'alternative titles' },
  avg_rating: { about: 'Mean rating of the titles, each with the same weight.', unit: 'stars, 1 to 10' },
  max_rating: { about: 'Highest rating of a title.', unit: 'stars, 1 to 10' },
  min_rating: { about: 'Lowest rating of a title.', unit: 'stars, 1 to 10' },
  rating_volatility: {
    about: 'Sample standard deviation of the ratings; null for a single title.',
    unit: 'stars',
  },
  avg_year: { about: 'Mean start year of the titles that have one; null if none has.', unit: 'year' },
  avg_runtime: {
    about: 'Mean running time of the titles that have one; null if none has.',
    unit: 'minutes',
  },
};

/**
 * The note of a column.
 * @param own notes of the table's declaration
 * @throws RangeError for a column without a note, because every published column needs one
 */
export function noteOf(column: string, own: Readonly<Record<string, ColumnNote>> = {}): ColumnNote {
  const note = own[column] ?? columnNotes[column];
  if (note === undefined) throw new RangeError(`the gold column ${column} has no note`);
  return note;
}
