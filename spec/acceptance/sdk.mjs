// Runs E2B's own JavaScript SDK against the local server: what it can do here it can do there.
// run.sh starts the servers and puts their addresses into the environment.
import assert from 'node:assert/strict'
import * as e2b from 'e2b'

const { Sandbox, Template } = e2b
const { LIMITED_URL, QUOTA_URL, SDK_VERSION } = process.env
const atLeast = (minor) => Number(SDK_VERSION.split('.')[1]) >= minor
const seconds = (from, to) => (to - from) / 1000
const near = (actual, wanted, what) =>
  assert.ok(Math.abs(actual - wanted) < 3, `${what}: ${actual} is not about ${wanted}`)

let passed = 0
let failed = 0
async function check(name, fn) {
  try {
    await fn()
    passed += 1
  } catch (error) {
    failed += 1
    console.log(`FAILED js ${SDK_VERSION}: ${name}: ${error && error.stack}`)
  }
}

async function collect(paginator) {
  const items = []
  while (paginator.hasNext) items.push(...(await paginator.nextItems()))
  return items
}
const ids = (items) => items.map((item) => item.sandboxId)
const run = `run-${process.pid}-${Date.now()}`

await check('create with defaults', async () => {
  const sandbox = await Sandbox.create()
  assert.match(sandbox.sandboxId, /^i[a-z0-9]{20}$/)
  const info = await sandbox.getInfo()
  assert.equal(info.name, 'base')
  assert.equal(info.state, 'running')
  near(seconds(info.startedAt, info.endAt), 300, 'default life')
  assert.equal(await sandbox.isRunning(), true)
  assert.equal(await sandbox.kill(), true)
})

await check('create with everything, get info', async () => {
  const metadata = { run, kind: 'full', 'key &=%+ü': 'value &=%+/ \u{1F600}' }
  const sandbox = await Sandbox.create('code-interpreter-v1', {
    timeoutMs: 119_001, metadata, envs: { A: 'b' }, allowInternetAccess: false,
    lifecycle: { onTimeout: 'pause', autoResume: true },
    network: { denyOut: ['0.0.0.0/0'], allowOut: ['10.0.0.0/8', 'example.com'], allowPublicTraffic: false },
  })
  assert.ok(sandbox.trafficAccessToken)
  const info = await Sandbox.getInfo(sandbox.sandboxId)
  assert.deepEqual(info.metadata, metadata)
  assert.equal(info.name, 'code-interpreter-v1')
  assert.equal(info.cpuCount, 2)
  assert.equal(info.memoryMB, 1024)
  assert.equal(info.envdVersion, '0.6.4')
  assert.equal(info.allowInternetAccess, false)
  assert.deepEqual(info.lifecycle, { onTimeout: 'pause', autoResume: true })
  assert.deepEqual(info.network.denyOut, ['0.0.0.0/0'])
  assert.equal(seconds(info.startedAt, info.endAt), 120)
  const found = await collect(Sandbox.list({ query: { metadata } }))
  assert.deepEqual(ids(found), [sandbox.sandboxId])
  assert.deepEqual(found[0].metadata, metadata)
  await sandbox.kill()
})

await check('pages and order', async () => {
  const made = []
  for (let i = 0; i < 3; i += 1) made.push(await Sandbox.create({ metadata: { run, page: 'yes' } }))
  await made[1].pause()
  const newest = made.map((sandbox) => sandbox.sandboxId).reverse()
  const query = { metadata: { run, page: 'yes' } }
  const pages = Sandbox.list({ query, limit: 1 })
  assert.equal(pages.hasNext, true)
  assert.deepEqual(ids(await pages.nextItems()), [newest[0]])
  assert.equal(pages.hasNext, true)
  assert.ok(pages.nextToken)
  const rest = Sandbox.list({ query, limit: 1, nextToken: pages.nextToken })
  assert.deepEqual(ids(await collect(rest)), newest.slice(1))
  assert.deepEqual(ids(await collect(pages)), newest.slice(1))
  assert.equal(pages.hasNext, false)
  assert.equal(pages.nextToken, undefined)
  await assert.rejects(pages.nextItems())
  const states = async (state) => ids(await collect(Sandbox.list({ query: { ...query, state } })))
  assert.deepEqual(await states(['running']), [newest[0], newest[2]])
  assert.deepEqual(await states(['paused']), [newest[1]])
  assert.deepEqual(await states(['running', 'paused']), newest)
  assert.deepEqual(ids(await collect(Sandbox.list({ query, order: 'asc', limit: 2 }))), [...newest].reverse())
  const asc = Sandbox.list({ query, order: 'asc', limit: 1 })
  await asc.nextItems()
  await assert.rejects(Sandbox.list({ query, nextToken: asc.nextToken }).nextItems(), /400/)
  const second = (await made[2].getInfo()).startedAt
  const after = await collect(Sandbox.list({ query: { ...query, startedAfter: new Date(Math.floor(+second)) } }))
  assert.deepEqual(ids(after), [newest[0]])
  assert.deepEqual(await collect(Sandbox.list({ query: { ...query, startedAfter: new Date(Date.now() + 5000) } })), [])
  assert.deepEqual(ids(await collect(Sandbox.list({ query: { ...query, template: 'base' } }))), newest)
  assert.deepEqual(await collect(Sandbox.list({ query: { ...query, template: 'desktop' } })), [])
  assert.deepEqual(await collect(Sandbox.list({ query: { template: 'no-such-template' } })), [])
  await assert.rejects(Sandbox.list({ query, limit: 101 }).nextItems(), /400/)
  await Promise.all(made.map((sandbox) => sandbox.kill()))
})

await check('pause, connect', async () => {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000 })
  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.pause(), false)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal((await sandbox.getInfo()).state, 'paused')
  await assert.rejects(sandbox.setTimeout(1000), e2b.SandboxNotFoundError)
  const again = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 90_000 })
  assert.equal(again.sandboxId, sandbox.sandboxId)
  const info = await again.getInfo()
  assert.equal(info.state, 'running')
  assert.equal(seconds(info.startedAt, info.endAt), 90)
  assert.equal(await again.isRunning(), true)
  await sandbox.connect({ timeoutMs: 10_000 })
  assert.equal(+(await again.getInfo()).endAt, +info.endAt)
  await sandbox.connect({ timeoutMs: 600_000 })
  near(seconds(Date.now(), (await again.getInfo()).endAt), 600, 'extended')
  if (atLeast(49)) {
    await sandbox.pause({ keepMemory: false })
    await sandbox.connect({ onResume: 'reboot' })
    assert.equal((await sandbox.getInfo()).state, 'running')
  }
  await sandbox.kill()
})

await check('set timeout', async () => {
  const sandbox = await Sandbox.create({ lifecycle: { onTimeout: 'pause' } })
  await sandbox.setTimeout(30_000)
  near(seconds(Date.now(), (await sandbox.getInfo()).endAt), 30, 'shortened')
  await sandbox.setTimeout(0)
  assert.equal((await sandbox.getInfo()).state, 'paused')
  await sandbox.kill()
  const mortal = await Sandbox.create()
  await mortal.setTimeout(0)
  await assert.rejects(mortal.getInfo(), e2b.SandboxNotFoundError)
  const brief = await Sandbox.create({ timeoutMs: 1 })
  assert.equal(await brief.isRunning(), true)
  await new Promise((resolve) => setTimeout(resolve, 1100))
  assert.equal(await brief.isRunning(), false)
})

await check('kill, and what is gone', async () => {
  const sandbox = await Sandbox.create()
  assert.equal(await Sandbox.kill(sandbox.sandboxId), true)
  assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
  assert.equal(await sandbox.kill(), false)
  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(Sandbox.getInfo(sandbox.sandboxId), e2b.SandboxNotFoundError)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), e2b.SandboxNotFoundError)
  await assert.rejects(Sandbox.setTimeout(sandbox.sandboxId, 1000), e2b.SandboxNotFoundError)
  await assert.rejects(Sandbox.pause(sandbox.sandboxId), e2b.SandboxNotFoundError)
  await assert.rejects(Sandbox.getMetrics(sandbox.sandboxId), e2b.SandboxNotFoundError)
})

await check('errors', async () => {
  await assert.rejects(Sandbox.create('no-such-template'), (error) => {
    assert.match(error.message, /404.*not found/)
    if (atLeast(49)) assert.equal(error.statusCode, 404)
    return true
  })
  await assert.rejects(Sandbox.create({ timeoutMs: 100 * 3600 * 1000 }), /400.*24 hours/)
  await assert.rejects(Sandbox.create({ network: { denyOut: ['example.com'] } }), /400/)
  const apiKey = 'e2b_' + 'f'.repeat(40)
  await assert.rejects(Sandbox.create({ apiKey }), e2b.AuthenticationError)
  await assert.rejects(Sandbox.getInfo('i00000000000000000000', { apiKey }), /Invalid API key/)
  await assert.rejects(Sandbox.list({ apiKey }).nextItems(), e2b.AuthenticationError)
  if (atLeast(46)) await assert.rejects(Sandbox.create({ apiKey: 'other_shape' }), /malformed/)
})

await check('rate limit and quota', async () => {
  const apiUrl = LIMITED_URL
  const options = { apiUrl, ...(atLeast(49) ? { retries: 0 } : {}) }
  await Sandbox.list(options).nextItems()
  await Sandbox.list(options).nextItems()
  await assert.rejects(Sandbox.list(options).nextItems(), e2b.RateLimitError)
  if (atLeast(49)) {
    const start = Date.now()
    await Sandbox.list({ apiUrl }).nextItems()
    assert.ok(Date.now() - start >= 900, 'waited as told')
  }
  await Sandbox.create({ apiUrl: QUOTA_URL })
  await assert.rejects(Sandbox.create({ apiUrl: QUOTA_URL }), (error) => {
    assert.ok(error instanceof e2b.RateLimitError)
    assert.match(error.message, /maximum number of concurrent/)
    return true
  })
})

await check('metrics', async () => {
  const sandbox = await Sandbox.create()
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const [point] = await sandbox.getMetrics()
  assert.ok(point.timestamp instanceof Date && point.cpuUsedPct > 0 && point.memTotal > point.memUsed)
  assert.deepEqual(await sandbox.getMetrics({ end: new Date(Date.now() - 3_600_000) }), [])
  await sandbox.kill()
})

await check('network update, fork, snapshots', async () => {
  const sandbox = await Sandbox.create()
  await sandbox.updateNetwork({ denyOut: ['8.8.8.8'] })
  assert.deepEqual((await sandbox.getInfo()).network.denyOut, ['8.8.8.8'])
  await sandbox.updateNetwork({})
  assert.equal((await sandbox.getInfo()).network.denyOut, undefined)
  const forks = await sandbox.fork({ count: 2, timeoutMs: 60_000 })
  assert.equal(forks.length, 2)
  assert.notEqual(forks[0].sandboxId, forks[1].sandboxId)
  await Promise.all(forks.map((each) => each.kill()))
  const snapshot = await sandbox.createSnapshot({ name: 'acceptance' })
  assert.deepEqual(snapshot.names.length, 1)
  const copy = await Sandbox.create(snapshot.snapshotId)
  await copy.kill()
  const listed = await collect(sandbox.listSnapshots())
  assert.deepEqual(listed.map((each) => each.snapshotId), [snapshot.snapshotId])
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
  await sandbox.kill()
})

await check('templates and volumes', async () => {
  assert.equal(await Template.exists('base'), true)
  assert.equal(await Template.exists('no-such-template'), false)
  assert.equal(await Template.exists('other-team-secret'), true)
  const volume = await e2b.Volume.create(run)
  const sandbox = await Sandbox.create({ volumeMounts: { '/mnt/data': volume } })
  assert.deepEqual((await sandbox.getInfo()).volumeMounts, [{ name: run, path: '/mnt/data' }])
  await assert.rejects(Sandbox.create({ volumeMounts: { '/mnt/data': 'no-such-volume' } }), /400/)
  await sandbox.kill()
  assert.equal(await e2b.Volume.destroy(volume.volumeId), true)
  assert.equal(await e2b.Volume.destroy(volume.volumeId), false)
})

await check('nothing is left', async () => {
  assert.deepEqual(ids(await collect(Sandbox.list())), [])
})

console.log(`js ${SDK_VERSION}: ${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
