/**
 * Builds the Kafka record batch (magic 2, zstd) of one message: frames the record around its value in place, compresses
 * it and computes the checksum. kafkajs copies it four times and computes the checksum byte by byte, which took as long
 * as the rest of a replay.
 *
 * Layout: https://kafka.apache.org/documentation/#recordbatch
 */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { Chunk } from './chunk-writer.ts';
import type { ProducerStamp } from './producer-identity.ts';
import { varint } from './varint.ts';

const batchHeaderBytes = 61;
const crcAt = 17;
const attributesAt = 21;
const magic = 2;
const zstdCodec = 4;
const noLeaderEpoch = -1;

// zstd's own checksum replaces the CRC, which kafkajs does not check when it reads. A compressed chunk mostly fits one
// output block; larger blocks outside the heap trigger garbage collection more often.
const pack = {
  chunkSize: 256 * 1024,
  params: {
    [zlib.constants.ZSTD_c_compressionLevel]: 1,
    [zlib.constants.ZSTD_c_checksumFlag]: 1,
  },
};

/** A value with the `marginBytes` before and after it, which are overwritten, and its key of at most 32 bytes. */
type Message = Pick<Chunk, 'memory' | 'value' | 'key'>;

/** The record of a message, packed: all of its batch that is known before it is sent. */
export function packRecordSync(message: Message): Buffer {
  return zlib.zstdCompressSync(frameRecord(message), pack);
}

const zstdCompress = promisify(zlib.zstdCompress) as (bytes: Buffer, options: typeof pack) => Promise<Buffer>;

/** As `packRecordSync`, on another thread. The value must not change until then. */
export function packRecord(message: Message): Promise<Buffer> {
  return zstdCompress(frameRecord(message), pack);
}

/**
 * The record batch of one message.
 * @param time milliseconds since 1970
 */
export function batchOfPacked(
  packed: Buffer,
  time: number,
  { producerId, epoch, sequence }: ProducerStamp,
): Buffer {
  const batch = Buffer.allocUnsafe(batchHeaderBytes + packed.length);
  batch.writeBigInt64BE(0n, 0); // base offset, assigned by the broker
  batch.writeInt32BE(batchHeaderBytes - 12 + packed.length, 8);
  batch.writeInt32BE(noLeaderEpoch, 12);
  batch.writeInt8(magic, 16);
  batch.writeInt16BE(zstdCodec, attributesAt);
  batch.writeInt32BE(0, 23); // last offset delta
  batch.writeBigInt64BE(BigInt(time), 27);
  batch.writeBigInt64BE(BigInt(time), 35);
  batch.writeBigInt64BE(producerId, 43);
  batch.writeInt16BE(epoch, 51);
  batch.writeInt32BE(sequence, 53);
  batch.writeInt32BE(1, 57); // records
  packed.copy(batch, batchHeaderBytes);
  batch.writeInt32BE(crc32c(batch, attributesAt), crcAt);
  return batch;
}

/** Writes the record's fields around its value. @returns the whole record */
function frameRecord({ memory, value, key }: Message): Buffer {
  const keyBytes = Buffer.from(key);
  const body = Buffer.concat([
    Buffer.of(0, 0, 0), // attributes, timestamp delta, offset delta
    varint(keyBytes.length),
    keyBytes,
    varint(value.length),
  ]);
  const length = varint(body.length + value.length + 1);
  const start = value.byteOffset - memory.byteOffset;
  const from = start - body.length - length.length;
  length.copy(memory, from);
  body.copy(memory, from + length.length);
  const end = start + value.length;
  memory[end] = 0; // no headers
  return memory.subarray(from, end + 1);
}

/** Castagnoli, reflected; eight tables of 256, so that eight bytes take one step. */
const tables = (() => {
  const all = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    all[byte] = crc;
  }
  for (let i = 256; i < all.length; i++) {
    const before = all[i - 256] as number;
    all[i] = (before >>> 8) ^ (all[before & 0xff] as number);
  }
  return all;
})();

/** CRC-32C of the bytes from `start` on, as a signed 32-bit number. Slicing-by-8 (Kounavis and Berry, 2005). */
export function crc32c(bytes: Buffer, start = 0): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const t = tables;
  let crc = -1;
  let p = start;
  for (const wordsEnd = bytes.length - 7; p < wordsEnd; p += 8) {
    const a = crc ^ view.getInt32(p, true);
    const b = view.getInt32(p + 4, true);
    crc =
      (t[1792 + (a & 0xff)] as number) ^
      (t[1536 + ((a >>> 8) & 0xff)] as number) ^
      (t[1280 + ((a >>> 16) & 0xff)] as number) ^
      (t[1024 + (a >>> 24)] as number) ^
      (t[768 + (b & 0xff)] as number) ^
      (t[512 + ((b >>> 8) & 0xff)] as number) ^
      (t[256 + ((b >>> 16) & 0xff)] as number) ^
      (t[b >>> 24] as number);
  }
  for (; p < bytes.length; p++) crc = (crc >>> 8) ^ (t[(crc ^ (bytes[p] as number)) & 0xff] as number);
  return ~crc;
}
