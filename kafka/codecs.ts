/**
 * The five codecs of Kafka for kafkajs, each with a limit on the decompressed size, so that a small message cannot fill
 * the memory. Importing this file registers them; kafkajs keeps codecs in one global table. LZ4 and Snappy, which only other
 * clients write, are loaded with the first such message.
 */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import kafkajs from 'kafkajs';

const { CompressionCodecs, CompressionTypes } = kafkajs;

/** Maximum decompressed size of a record batch, in bytes. Our own batches hold one chunk of at most 1 MB. */
const batchBytesMax = 64 * 1024 * 1024;

interface Encoder {
  readonly buffer: Buffer;
}

const gzip = promisify(zlib.gzip);
const gunzip = promisify(zlib.gunzip);

CompressionCodecs[CompressionTypes.GZIP] = () => ({
  compress: (encoder: Encoder) => gzip(encoder.buffer),
  decompress: (packed: Buffer) => gunzip(packed, { maxOutputLength: batchBytesMax }),
});

// Synchronous: a chunk takes a millisecond or two, less than a round trip through the thread pool costs under load. An
// output block of the size of a chunk avoids growing the default 16 kB blocks. The checksum replaces the CRC that
// kafkajs does not check.
const zstdPack = {
  chunkSize: 1024 * 1024,
  params: {
    [zlib.constants.ZSTD_c_compressionLevel]: 1,
    [zlib.constants.ZSTD_c_checksumFlag]: 1,
  },
};

CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder: Encoder) => zlib.zstdCompressSync(encoder.buffer, zstdPack),
  decompress: async (packed: Buffer) => unpackZstd(packed),
});

/** Decompresses into one buffer of the size in the frame header, if it has one. */
function unpackZstd(packed: Buffer): Buffer {
  const size = Math.min(zstdContentBytes(packed) ?? 1024 * 1024, batchBytesMax);
  return zlib.zstdDecompressSync(packed, { chunkSize: Math.max(64, size), maxOutputLength: batchBytesMax });
}

/**
 * Content size in the header of a zstd frame; undefined without one.
 * Layout: RFC 8878, section 3.1.1.1
 */
function zstdContentBytes(packed: Buffer): number | undefined {
  if (packed.length < 18 || packed.readUInt32LE(0) !== 0xfd2fb528) return undefined;
  const descriptor = packed.readUInt8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const at = 5 + (isSingleSegment ? 0 : 1) + ([0, 1, 2, 4][descriptor & 3] as number);
  switch (descriptor >> 6) {
    case 0:
      return isSingleSegment ? packed.readUInt8(at) : undefined;
    case 1:
      return packed.readUInt16LE(at) + 256;
    case 2:
      return packed.readUInt32LE(at);
    default:
      return Number(packed.readBigUInt64LE(at));
  }
}

const loadLz4 = async () => (await import('lz4js')).default;

CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder: Encoder) => Buffer.from((await loadLz4()).compress(encoder.buffer)),
  decompress: async (packed: Buffer) => Buffer.from((await loadLz4()).decompress(packed, batchBytesMax)),
});

/** Java clients frame snappy blocks as snappy-java does: magic, two int32 versions, then (int32 length, block)*. */
const xerialMagic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);

const loadSnappy = async () => (await import('snappyjs')).default;

CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: async (encoder: Encoder) => Buffer.from((await loadSnappy()).compress(encoder.buffer)),
  decompress: async (packed: Buffer) => unpackSnappy(packed),
});

async function unpackSnappy(packed: Buffer): Promise<Buffer> {
  const snappy = await loadSnappy();
  if (!packed.subarray(0, 8).equals(xerialMagic))
    return Buffer.from(snappy.uncompress(packed, batchBytesMax));
  const blocks: Buffer[] = [];
  let bytes = 0;
  for (let at = 16; at < packed.length; ) {
    const length = packed.readInt32BE(at);
    const block = Buffer.from(
      snappy.uncompress(packed.subarray(at + 4, at + 4 + length), batchBytesMax - bytes),
    );
    bytes += block.length;
    blocks.push(block);
    at += 4 + length;
  }
  return Buffer.concat(blocks, bytes);
}
