/** A log is proved by the last message that a state contains. */
import { expect, test } from 'vitest';
import { hashOf } from '../../topics/chunk.ts';
import { expectedByHash, LogProof, proofHashOf } from '../../topics/log-proof.ts';

const value = Buffer.from('a message');
const timestampMs = 5;
const hash = proofHashOf({ timestampMs, value });

test('the message before the next offset proves a log, and only once', () => {
  const proof = new LogProof<string>();
  proof.require('topic', expectedByHash(7, hash));
  expect(proof.isComplete).toBe(false);
  expect([proof.readFrom('topic', 7), proof.readFrom('another', 7)]).toEqual([6, 7]);
  expect(proof.accept('topic', { offset: 6, timestampMs, value })).toBe(true);
  expect([proof.isComplete, proof.readFrom('topic', 7)]).toEqual([true, 7]);
});

test('another value, time or offset proves nothing, and the proof stays pending', () => {
  const proof = new LogProof<string>();
  proof.require('topic', expectedByHash(7, hash));
  expect(proof.accept('topic', { offset: 6, timestampMs, value: Buffer.from('another') })).toBe(false);
  expect(proof.accept('topic', { offset: 6, timestampMs: 6, value })).toBe(false);
  expect(proof.accept('topic', { offset: 7, timestampMs, value })).toBe(false);
  expect(proof.isPending('topic')).toBe(true);
});

test('a position behind no message needs no proof', () => {
  const proof = new LogProof<number>();
  proof.require(0, expectedByHash(7, proofHashOf({ timestampMs, value: null })));
  proof.require(1, expectedByHash(7, undefined));
  expect(proof.isComplete).toBe(true);
});

test('a state of an earlier version, whose hash has no time, is proved by the value', () => {
  const proof = new LogProof<number>();
  proof.require(0, expectedByHash(7, hashOf(value)));
  expect(proof.accept(0, { offset: 6, timestampMs, value })).toBe(true);
});
