// CIDs by the reference implementation: reads sizes from argv, makes the same bytes as the test, prints one CID a line.
import { MemoryBlockstore } from 'blockstore-core/memory'
import { importer } from 'ipfs-unixfs-importer'

function bytes (size) {
  const out = new Uint8Array(size)
  let state = 1
  for (let i = 0; i < size; i++) {
    if (i % 4096 === 0) state = (Math.imul(state, 1103515245) + 12345) >>> 0
    out[i] = (state >>> 16) & 0xff
  }
  return out
}

for (const size of process.argv.slice(2).map(Number)) {
  let last
  const source = [{ path: 'file', content: bytes(size) }]
  for await (const entry of importer(source, new MemoryBlockstore(), { profile: 'unixfs-v1-2025', wrapWithDirectory: false })) last = entry
  console.log(last.cid.toString())
}
