// The official JavaScript SDK through its public functions.  node sdk.js URL start|get|concurrent|pages|cycle COUNT
'use strict'
const [url, workload, countText] = process.argv.slice(2)
const count = Number(countText)
const ID = 'ibench0000000000000001'
const { Sandbox } = require('e2b')
const connection = { apiKey: 'e2b_' + '0'.repeat(40), apiUrl: url }

function check(good, what) {
  if (!good) throw new Error(what)
}

async function getInfos(n) {
  for (let i = 0; i < n; i++) {
    const info = await Sandbox.getInfo(ID, connection)
    check(info.cpuCount === 2, 'wrong answer')
  }
}

const workloads = {
  start: () => getInfos(count),
  get: () => getInfos(count),
  async concurrent() {
    let left = count
    const worker = async () => {
      while (left-- > 0) await getInfos(1)
    }
    await Promise.all(Array.from({ length: 50 }, worker))
  },
  async pages() {
    const paginator = Sandbox.list({ limit: 100, ...connection })
    let pages = 0
    let sandboxes = 0
    while (paginator.hasNext) {
      sandboxes += (await paginator.nextItems()).length
      pages += 1
    }
    check(pages === count && sandboxes === count * 100, 'wrong pages')
  },
  async cycle() {
    for (let i = 0; i < count; i++) {
      const sandbox = await Sandbox.create('base', { timeoutMs: 300_000, ...connection })
      await sandbox.kill()
    }
  },
}

workloads[workload]().then(
  () => process.exit(0),
  (error) => {
    console.error(error)
    process.exit(1)
  }
)
