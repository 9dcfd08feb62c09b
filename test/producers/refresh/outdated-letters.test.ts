/** Which dead letters a refresh closes, as every reader of the letters counts them. */
import { expect, it } from 'vitest';
import { DeadLetterView } from '../../../monitor/dead-letters.ts';
import { createProducer } from '../../../producers/producer.ts';
import { idText } from '../../../topics/catalog.ts';
import { deadLetterMessage } from '../../../topics/dead-letter.ts';
import { broker, DumpPlace, fileOf } from '../../support/dump-place.ts';

const row = (id: number, rating: string) => `${idText('tt', id)}\t${rating}\t9`;
const good = [10_000, 20_000, 30_000, 40_000, 50_000].map((id) => row(id, '5.0'));

const refresh = (place: DumpPlace, ...rows: string[]) =>
  place.replay(place.dump({ 'title.ratings': fileOf('title.ratings', [...good, ...rows].sort()) }), {
    datasets: ['title.ratings'],
    maxRejected: 90,
    maxRemoved: 100,
  });

async function counts({ options }: DumpPlace) {
  const { groups } = await new DeadLetterView(broker, options.names, { latestMax: 1 }).read();
  const total = { open: 0, superseded: 0 };
  for (const { open, superseded } of groups) {
    total.open += open;
    total.superseded += superseded;
  }
  return total;
}

it('a letter is superseded once a dump has corrected, removed or changed its row, and stays open until then', async () => {
  const place = new DumpPlace();
  const [corrected, removed, stays] = [row(10_001, 'one'), row(20_001, 'two'), row(30_001, 'three')];
  await refresh(place, corrected, removed, stays);
  expect(await counts(place)).toEqual({ open: 3, superseded: 0 });
  await refresh(place, corrected, removed, stays);
  expect(await counts(place)).toEqual({ open: 3, superseded: 0 });
  await refresh(place, row(10_001, '1.0'), stays);
  expect(await counts(place)).toEqual({ open: 1, superseded: 2 });
  // Another row of the group: the refused row is sent again, and so is its letter.
  await refresh(place, row(10_001, '1.0'), stays, row(30_002, '2.0'));
  expect(await counts(place)).toEqual({ open: 1, superseded: 3 });
  // A base repeats what did not change.
  await place.replay(place.dump({ 'title.ratings': fileOf('title.ratings', [...good, stays].sort()) }), {
    datasets: ['title.ratings'],
    maxRejected: 90,
    maxRemoved: 100,
    baseAbove: 0,
  });
  expect(await counts(place)).toEqual({ open: 1, superseded: 4 });
  await refresh(place);
  expect(await counts(place)).toEqual({ open: 0, superseded: 5 });
});

it('letters of rows without an id are superseded when these rows are others', async () => {
  const place = new DumpPlace();
  await refresh(place, 'nonsense\t1.0\t1');
  await refresh(place, 'nonsense\t1.0\t1');
  expect(await counts(place)).toEqual({ open: 1, superseded: 0 });
  await refresh(place, 'rubbish\t1.0\t1');
  expect(await counts(place)).toEqual({ open: 1, superseded: 1 });
  await refresh(place);
  expect(await counts(place)).toEqual({ open: 0, superseded: 2 });
});

it('the letter of a consumer is superseded when the next refresh sends its groups again', async () => {
  const place = new DumpPlace();
  const { names } = place.options;
  await refresh(place);
  const producer = createProducer(broker);
  await producer.connect();
  const source = { topic: names.source('title.ratings'), partition: 0, offset: '0' };
  const letter = { stage: 'processor', reason: 'undecodable', detail: 'of a test', source } as const;
  const message = deadLetterMessage({ ...letter, original: Buffer.of(1), time: new Date() });
  await producer.send({ topic: names.deadLetter, messages: [{ ...message, partition: 1 }] });
  await producer.disconnect();
  expect(await counts(place)).toEqual({ open: 1, superseded: 0 });
  await refresh(place);
  expect(await counts(place)).toEqual({ open: 0, superseded: 1 });
});
