// What happens inside a sandbox, through the official JavaScript SDK.  node inside.js URL WORKLOAD COUNT FOLDER
'use strict'
const fs = require('fs')
const path = require('path')
const { Readable } = require('stream')
const { pipeline } = require('stream/promises')
const { Sandbox } = require('e2b')

const [url, workload, countText, folder] = process.argv.slice(2)
const count = Number(countText)
const connection = { apiKey: 'e2b_' + '0'.repeat(40), apiUrl: url, sandboxUrl: url }

function check(good, what) {
  if (!good) throw new Error(what)
}

async function runTrue(sandbox) {
  const result = await sandbox.commands.run('true')
  check(result.exitCode === 0, 'it failed')
}

// counts what comes as a program would that prints it
async function output(sandbox, command, bytes) {
  let seen = 0
  const options = { timeoutMs: 600_000, onStdout: (text) => { seen += text.length } }
  const result = await sandbox.commands.run(command, options)
  check(result.exitCode === 0 && seen === bytes, `${seen} bytes of output`)
}

// a file to fetch, where the server doesn't make one up
async function prepare(sandbox) {
  if (process.env.BENCH_PREPARE) await sandbox.commands.run(process.env.BENCH_PREPARE)
}

const small = () => fs.readdirSync(path.join(folder, 'small')).map((name) => path.join(folder, 'small', name))

const workloads = {
  start: runTrue,
  async run(sandbox) {
    for (let i = 0; i < count; i++) await runTrue(sandbox)
  },
  async run50(sandbox) {
    let left = count
    const worker = async () => {
      while (left-- > 0) await runTrue(sandbox)
    }
    await Promise.all(Array.from({ length: 50 }, worker))
  },
  lines: (sandbox) => output(sandbox, process.env.BENCH_LINES, count * 80),
  flushed: (sandbox) => output(sandbox, process.env.BENCH_FLUSHED, count * 80),
  output: (sandbox) => output(sandbox, process.env.BENCH_OUTPUT, count),
  async down(sandbox) {
    await prepare(sandbox)
    const stream = await sandbox.files.read(process.env.BENCH_DOWN, { format: 'stream', requestTimeoutMs: 600_000 })
    const file = path.join(folder, 'down')
    await pipeline(Readable.fromWeb(stream), fs.createWriteStream(file))
    check(fs.statSync(file).size === count, 'wrong size')
  },
  async drain(sandbox) {
    await prepare(sandbox)
    let seen = 0
    const stream = await sandbox.files.read(process.env.BENCH_DOWN, { format: 'stream', requestTimeoutMs: 600_000 })
    for await (const chunk of stream) seen += chunk.length
    check(seen === count, 'wrong size')
  },
  async up(sandbox) {
    const stream = Readable.toWeb(fs.createReadStream(path.join(folder, 'up')))
    const info = await sandbox.files.write('/home/user/up', stream, { requestTimeoutMs: 600_000 })
    check(info.type === 'file', 'not written')
  },
  async small(sandbox) {
    const files = small()
    check(files.length === count, 'wrong files')
    for (const file of files) {
      await sandbox.files.write('/home/user/one/' + path.basename(file), fs.readFileSync(file, 'utf8'))
    }
  },
  async tree(sandbox) {
    const files = small()
    check(files.length === count, 'wrong files')
    await sandbox.files.write(
      files.map((file) => ({ path: '/home/user/many/' + path.basename(file), data: fs.readFileSync(file, 'utf8') })),
      { requestTimeoutMs: 600_000 }
    )
  },
}

async function main() {
  const sandbox = await Sandbox.create('base', { timeoutMs: 900_000, ...connection })
  try {
    await workloads[workload](sandbox)
  } finally {
    await sandbox.kill()
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error)
    process.exit(1)
  }
)
