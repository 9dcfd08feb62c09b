/**
 * What `title_features` prepares for training, as a contract: genres that have a column, and how titles are split.
 * Genres are a fixed list, so the columns are the same in every snapshot and no input can add any; titles of a
 * genre that is not in it are `genre_other`.
 */

/** The genres of IMDb. */
const genres = [
  'Action',
  'Adult',
  'Adventure',
  'Animation',
  'Biography',
  'Comedy',
  'Crime',
  'Documentary',
  'Drama',
  'Family',
  'Fantasy',
  'Film-Noir',
  'Game-Show',
  'History',
  'Horror',
  'Music',
  'Musical',
  'Mystery',
  'News',
  'Reality-TV',
  'Romance',
  'Sci-Fi',
  'Short',
  'Sport',
  'Talk-Show',
  'Thriller',
  'War',
  'Western',
] as const;

/** Column → genre: `genre_film_noir` → `Film-Noir`. */
export const genreColumns: ReadonlyMap<string, string> = new Map(
  genres.map((genre) => [`genre_${genre.toLowerCase().replace('-', '_')}`, genre]),
);

/**
 * Shares of the titles in percent. The first 8 hexadecimal digits of MD5 of the tconst, modulo 100, are a title's
 * bucket for ever: below 80 it is for training, below 90 for validation, else for the test.
 */
export const splitShares = { train: 80, validation: 10, test: 10 } as const;

/** Columns that are standardised, by the column that they come from: (value − mean) / deviation, 0 where missing. */
export const standardised = ['startYear', 'runtimeMinutes'] as const;
