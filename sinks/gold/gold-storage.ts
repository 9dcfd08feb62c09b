/** What an error says about the gold folder. */
import type { Storage } from '../../database/storage-errors.ts';

export const goldStorage = (gold: string): Storage => ({
  path: gold,
  folder: 'the gold folder',
  kind: 'goldUnusable',
  unusable: 'The gold folder cannot be written',
  hint: 'Check its permissions, or use another --gold folder.',
  hintWhenFull: 'Free disk space and start again; CURRENT still names a complete snapshot.',
});
