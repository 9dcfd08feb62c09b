/**
 * The contract of the training columns in `title_features`: the genres with a column of their own. The list of genres is fixed, so every snapshot has the same columns whatever the input holds. `genre_other` marks
 * titles with another genre.
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

/** Columns that have a standardised form: (value − mean) / deviation, or 0 if the value is null. */
export const standardised = ['startYear', 'runtimeMinutes'] as const;
