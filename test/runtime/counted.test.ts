import { expect, test } from 'vitest';
import { counted } from '../../runtime/counted.ts';

test.each([
  [0, '0 rows'],
  [1, '1 row'],
  [2_000, '2,000 rows'],
])('%i is said as “%s”', (count, text) => {
  expect(counted(count, 'row')).toBe(text);
});

test('a noun of its own plural', () => {
  expect(counted(1, 'letter is', 'letters are')).toBe('1 letter is');
  expect(counted(2, 'letter is', 'letters are')).toBe('2 letters are');
});
