/** Permanent refusals by a real broker: the command ends with an exit code of its own and names topic and setting. */
import { expect } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { broker, type Finished, headerOf, limitOf, type Place, spoken, test } from '../support/harness.ts';

const limit = (topic: string, bytes: number) =>
  withAdmin(broker, (admin) => admin.alterConfigs(limitOf(topic, bytes)));

const ratings = (place: Place, name: string, text: string) =>
  place.files(name, { 'title.ratings.tsv': `${headerOf('title.ratings')}${text}` });
const more = ['--datasets', 'title.ratings', '--shards', '1'];

function expectRefused(finished: Finished, topic: string): void {
  expect(finished.code, finished.stderr.slice(-4_000)).toBe(new ReelflowError('brokerRefused', '').exitCode);
  expect(spoken(finished)).toContain(topic);
  expect(spoken(finished)).toContain('max.message.bytes');
  expect(finished.stderr).not.toContain('defect');
}

test('a processor whose deltas become too large for their topic ends, and continues when the limit is raised', async ({
  place,
}) => {
  await place.upsert(ratings(place, 'one', 'tt0000001\t5.7\t2\n'), ...more);
  const member = place.start(place.args('process', '--shards', '1', '--verbose'));
  await member.logged('a micro-batch', ({ msg }) => msg === 'micro-batch');
  await limit(place.names.deltas, 80);
  await place.upsert(ratings(place, 'two', 'tt0000002\t6.1\t30\n'), ...more);
  expectRefused(await member.done, place.names.deltas);
  expectRefused(await place.run(place.args('process', '--shards', '1')), place.names.deltas);
  await limit(place.names.deltas, 1_048_588);
  await place.process('--shards', '1');
  await place.sink();
  const accounts = place.manifest.accounting[place.names.source('title.ratings')];
  expect(accounts).toMatchObject({ applied: 2, duplicate: 0, rejected: 0 });
});

test('a replay into a topic with a lower message limit is refused before it sends', async ({ place }) => {
  await place.upsert(ratings(place, 'one', 'tt0000001\t5.7\t2\n'), ...more);
  await limit(place.names.source('title.ratings'), 50_000);
  const finished = await place.run(
    place.args('replay', '--upsert', ratings(place, 'two', 'tt0000002\t6.1\t30\n'), ...more),
  );
  expectRefused(finished, place.names.source('title.ratings'));
});
