/** Requests about groups while their coordinator moves. */
import { expect, test } from 'vitest';
import { withCoordinator } from '../../kafka/groups.ts';

const failing = (times: number, error: Error) => {
  let asked = 0;
  return async () => {
    asked += 1;
    if (asked <= times) throw error;
    return asked;
  };
};
const moved = Object.assign(new Error('This is not the correct coordinator for this group'), {
  name: 'KafkaJSProtocolError',
  retriable: true,
});

const absent = Object.assign(new Error('Failed to find group coordinator'), {
  name: 'KafkaJSGroupCoordinatorNotFound',
});

test('are repeated while there is none or it moves, not without end, and not after another error', async () => {
  expect(await withCoordinator(failing(2, moved))).toBe(3);
  expect(await withCoordinator(failing(1, absent))).toBe(2);
  await expect(withCoordinator(failing(999, moved))).rejects.toBe(moved);
  const other = new Error('refused');
  await expect(withCoordinator(failing(1, other))).rejects.toBe(other);
});
