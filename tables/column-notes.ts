/**
 * What the columns of gold mean. A column name means the same in every table that has it, so this is one dictionary; it
 * travels in the metadata of each Parquet file and stands in what `gold show` and `gold report` print.
 */
import { genreColumns, standardised } from './training-features.ts';

export interface ColumnNote {
  readonly about: string;
  /** What one of it is; left out for names and other texts. */
  readonly unit?: string;
}

/** The key under which a Parquet file carries its notes: `{ about, columns: { name: ColumnNote } }` as JSON. */
export const notesKey = 'reelflow';

export const columnNotes: Readonly<Record<string, ColumnNote>> = {
  tconst: { about: 'IMDb id of a title.' },
  titleType: { about: 'Type of a title, as movie or tvEpisode; null while no row of title.basics has come.' },
  isAdult: { about: 'Whether it is a title for adults; null while no row of title.basics has come.' },
  runtimeMinutes: { about: 'Running time of a title.', unit: 'minutes' },
  averageRating: { about: 'Rating of a title.', unit: 'stars, 1 to 10' },
  numVotes: { about: 'Votes on a title.', unit: 'votes' },
  principals: { about: 'Credits of people on a title.', unit: 'credits' },
  people: { about: 'Different people among them.', unit: 'people' },
  akas: { about: 'Alternative titles of a title.', unit: 'alternative titles' },
  regions: { about: 'Different regions that they name.', unit: 'regions' },
  numVotes_log10: { about: 'Logarithm of numVotes; 0 for no votes.', unit: 'powers of ten' },
  ...Object.fromEntries(
    standardised.flatMap((column) => [
      [
        `${column}_standardised`,
        {
          about: `(${column} − mean) / deviation, both in the manifest; 0 where it is missing.`,
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
  genre_other: { about: 'Whether a genre is among them that has no column.' },
  split: { about: 'train, validation or test: by a hash of the tconst, so the same in every snapshot.' },
  genres: {
    about:
      'Genres of a title, one to three: joined by commas as IMDb writes them, in title_features a list; null is none.',
  },
  startYear: { about: 'Year in which a title was first shown.', unit: 'year' },
  decade: { about: 'First year of the decade: startYear rounded down to tens.', unit: 'year' },
  nconst: { about: 'IMDb id of a person.' },
  primaryName: { about: 'Name by which the person is best known; null while no name has come.' },
  region: { about: 'Region of an alternative title, as IMDb writes it.' },
  total_titles: { about: 'Rated titles, each counted once.', unit: 'titles' },
  total_votes: { about: 'Votes on these titles.', unit: 'votes' },
  total_credits: { about: 'Credits of the person on rated titles.', unit: 'credits' },
  total_akas: { about: 'Alternative titles for the region, of rated titles.', unit: 'alternative titles' },
  avg_rating: { about: 'Mean of the ratings of the titles, each weighing the same.', unit: 'stars, 1 to 10' },
  max_rating: { about: 'Highest rating of a title.', unit: 'stars, 1 to 10' },
  min_rating: { about: 'Lowest rating of a title.', unit: 'stars, 1 to 10' },
  rating_volatility: {
    about: 'Sample standard deviation of the ratings of the titles; null for a single title.',
    unit: 'stars',
  },
  avg_year: { about: 'Mean start year of the titles that have one; null where none has.', unit: 'year' },
  avg_runtime: {
    about: 'Mean running time of the titles that have one; null where none has.',
    unit: 'minutes',
  },
};

/** @throws RangeError for a column without a note: a table must not be published before its columns are explained */
export function noteOf(column: string): ColumnNote {
  const note = columnNotes[column];
  if (note === undefined) throw new RangeError(`the gold column ${column} has no note`);
  return note;
}
