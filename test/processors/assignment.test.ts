/** When shards open and close, over shards that only record what is done to them. */
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Assignment } from '../../processors/assignment.ts';
import type { Shard } from '../../processors/shard.ts';

/** An assignment, what happened, and gates: what each one names waits until it is opened. */
function recorded(...closed: readonly string[]) {
  const events: string[] = [];
  const gates = new Map(closed.map((name) => [name, Promise.withResolvers<void>()]));
  const pass = async (event: string) => {
    events.push(event);
    await gates.get(event)?.promise;
  };
  const create = (number: number): Shard => {
    const shard = {
      number,
      isLost: false,
      lose: () => {
        shard.isLost = true;
      },
      isSuperseded: () => pass(`ask ${number}`).then(() => false),
      close: () =>
        pass(`${shard.isLost ? 'lose' : 'close'} ${number}`).then(() => void events.push(`closed ${number}`)),
    };
    return shard as unknown as Shard;
  };
  const assignment = new Assignment({
    create,
    open: async ({ number }) => {
      await pass(`open ${number}`);
      events.push(`opened ${number}`);
    },
    onOpened: () => undefined,
    onChanged: () => undefined,
    onFailure: (thrown) => events.push(String(thrown)),
    isActive: () => true,
    graceMs: 0,
  });
  return {
    assignment,
    events,
    pass: (name: string) => gates.get(name)?.resolve(),
    fail: (name: string) => {
      gates.get(name)?.reject(`${name} failed`);
      gates.delete(name);
    },
  };
}

async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn();
}

test('a lost shard closes before the member asks about the shards that it keeps', async () => {
  const { assignment, events } = recorded('ask 1');
  assignment.assign([1, 2]);
  await settled();
  events.length = 0;
  assignment.assign([1]);
  expect(events).toEqual(['lose 2']);
  await settled();
  expect(events).toContain('closed 2');
});

test('a shard that is lost while others open closes as soon as it is open', async () => {
  const { assignment, events, pass } = recorded('open 1', 'open 2');
  assignment.assign([1, 2]);
  await settled();
  assignment.assign([1]);
  pass('open 2');
  await settled();
  expect(events).toEqual(['open 1', 'open 2', 'opened 2', 'lose 2', 'closed 2']);
  pass('open 1');
  await settled();
  expect(assignment.isComplete).toBe(true);
});

// Method: opening publishes the outbox of the owner before, which a shard that is lost meanwhile refuses to do.
test('a shard that is lost while it opens may fail to open, and opens again when it is assigned again', async () => {
  const { assignment, events, pass, fail } = recorded('open 1', 'open 2');
  assignment.assign([1, 2]);
  await settled();
  assignment.assign([2]);
  assignment.assign([1, 2]);
  fail('open 1');
  pass('open 2');
  await settled();
  expect(events).not.toContain('open 1 failed');
  expect(events.filter((event) => event === 'open 1')).toHaveLength(2);
});

test('a shard that is lost and assigned again opens only after it has closed', async () => {
  const { assignment, events, pass } = recorded('lose 1');
  assignment.assign([1]);
  await settled();
  assignment.assign([]);
  assignment.assign([1]);
  await settled();
  expect(events).toEqual(['open 1', 'opened 1', 'lose 1']);
  pass('lose 1');
  await settled();
  expect(events.slice(3, 6)).toEqual(['closed 1', 'open 1', 'opened 1']);
});

test('the end of the member waits for lost shards that still close', async () => {
  const { assignment, events, pass } = recorded('lose 1');
  assignment.assign([1]);
  await settled();
  assignment.assign([]);
  const closed = assignment.close().then(() => events.push('end'));
  await settled();
  expect(events).not.toContain('end');
  pass('lose 1');
  await closed;
  expect(events.slice(-2)).toEqual(['closed 1', 'end']);
});

test('a request about a shard that was lost meanwhile may fail, another one ends the member', async () => {
  const { assignment, events, fail } = recorded('ask 1', 'ask 2');
  assignment.assign([1, 2]);
  await settled();
  assignment.reassignSoon();
  await settled();
  assignment.assign([2]);
  fail('ask 1');
  await settled();
  expect(events).not.toContain('ask 1 failed');
  fail('ask 2');
  await settled();
  expect(events).toContain('ask 2 failed');
});

test('the end of a member that cannot open a shard closes those that were still opening', async () => {
  const { assignment, events, pass, fail } = recorded('open 1', 'open 2');
  assignment.assign([1, 2]);
  await settled();
  fail('open 1');
  await settled();
  expect(events).toContain('open 1 failed');
  const closed = assignment.close();
  await settled();
  pass('open 2');
  await closed;
  expect(events.slice(-3)).toEqual(['opened 2', 'close 2', 'closed 2']);
});
