// Runs E2B's own JavaScript SDK against sandboxes of the local server: what it can do inside of E2B's it can do there.
import assert from 'node:assert/strict'
import http from 'node:http'
import * as e2b from 'e2b'

const { Sandbox } = e2b
const { SDK_VERSION, E2B_API_URL } = process.env
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
async function until(condition, what) {
  for (let i = 0; i < 500; i += 1) {
    if (await condition()) return
    await sleep(20)
  }
  throw new Error(`waited in vain for ${what}`)
}

let passed = 0
let failed = 0
const sandbox = await Sandbox.create({ envs: { COLOUR: 'blue' } })
async function check(name, fn) {
  try {
    await fn()
    passed += 1
  } catch (error) {
    failed += 1
    console.log(`FAILED js ${SDK_VERSION}: ${name}: ${error && error.stack}`)
  }
}

await check('run', async () => {
  const result = await sandbox.commands.run('echo "Hello,\nWorld!"; echo \'!@#$%^&*()_+\'; echo "$COLOUR $MINE" >&2', {
    envs: { MINE: 'x' },
  })
  assert.equal(result.stdout, 'Hello,\nWorld!\n!@#$%^&*()_+\n')
  assert.equal(result.stderr, 'blue x\n')
  assert.equal(result.exitCode, 0)
  assert.equal((await sandbox.commands.run('echo "[$MINE]"')).stdout, '[]\n')
  await assert.rejects(sandbox.commands.run('echo out; echo err >&2; exit 7'), (error) => {
    assert.ok(error instanceof e2b.CommandExitError)
    assert.deepEqual([error.exitCode, error.stdout, error.stderr], [7, 'out\n', 'err\n'])
    return true
  })
  await assert.rejects(sandbox.commands.run('read line'), e2b.CommandExitError)
})

await check('run: user, cwd', async () => {
  assert.equal((await sandbox.commands.run('whoami; pwd')).stdout, 'user\n/home/user\n')
  assert.equal((await sandbox.commands.run('whoami; pwd', { user: 'root' })).stdout, 'root\n/root\n')
  assert.equal((await sandbox.commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
  await sandbox.commands.run('mkdir -p ~/some/place')
  assert.equal((await sandbox.commands.run('pwd', { cwd: '~/some/place' })).stdout, '/home/user/some/place\n')
  await assert.rejects(sandbox.commands.run('pwd', { cwd: '/nowhere' }), e2b.InvalidArgumentError)
  await assert.rejects(sandbox.commands.run('pwd', { cwd: '/root/x', user: 'nobody-here' }))
})

await check('run: output as it comes, split characters', async () => {
  const seen = []
  const begin = Date.now()
  const result = await sandbox.commands.run('echo one; sleep 0.3; echo two; echo three >&2', {
    onStdout: (data) => seen.push([data, Date.now() - begin]),
    onStderr: (data) => seen.push([data, 0]),
  })
  assert.equal(result.stdout, 'one\ntwo\n')
  assert.equal(seen[0][0], 'one\n')
  assert.ok(seen[0][1] < 290, 'streamed')
  const emoji = await sandbox.commands.run("printf '\\360\\237'; sleep 0.1; printf '\\230\\200'")
  assert.equal(emoji.stdout, '\u{1F600}')
  const bad = await sandbox.commands.run("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'")
  assert.equal(bad.stdout, 'a'.repeat(8191) + '\uFFFD')
})

await check('run: a lot of output', async () => {
  const result = await sandbox.commands.run('seq 1 200000')
  assert.equal(result.stdout.length, 1288895)
  assert.ok(result.stdout.endsWith('\n199999\n200000\n'))
})

await check('run: timeout', async () => {
  await assert.rejects(sandbox.commands.run('sleep 30', { timeoutMs: 300 }), e2b.TimeoutError)
  await until(async () => !(await sandbox.commands.list()).some((p) => p.args.includes('sleep 30')), 'the end of sleep')
})

await check('background: stdin, list, connect, kill', async () => {
  const handle = await sandbox.commands.run('cat', { background: true, stdin: true, timeoutMs: 0 })
  await sandbox.commands.sendStdin(handle.pid, 'hällo\n')
  await until(() => handle.stdout === 'hällo\n', 'the echo')
  const listed = (await sandbox.commands.list()).find((p) => p.pid === handle.pid)
  assert.equal(listed.cmd, '/bin/bash')
  assert.deepEqual(listed.args, ['-l', '-c', 'cat'])
  let later = ''
  const second = await sandbox.commands.connect(handle.pid, { onStdout: (data) => { later += data } })
  await handle.sendStdin('more\n')
  await until(() => later === 'more\n', 'output at the second handle')
  await second.disconnect()
  await handle.closeStdin()
  assert.equal((await handle.wait()).exitCode, 0)

  const sleeper = await sandbox.commands.run('sleep 1000', { background: true, timeoutMs: 0 })
  assert.equal(await sandbox.commands.kill(sleeper.pid), true)
  await assert.rejects(sleeper.wait(), e2b.CommandExitError)
  assert.equal(await sandbox.commands.kill(999999), false)
  await assert.rejects(sandbox.commands.run(`kill -0 ${sleeper.pid}`), e2b.CommandExitError)
  await assert.rejects(sandbox.commands.connect(999999), e2b.NotFoundError)
})

await check('background: goes on when nobody listens, exit is kept for a while', async () => {
  const handle = await sandbox.commands.run('sleep 0.3; exit 5', { background: true, timeoutMs: 0 })
  await handle.disconnect()
  await sleep(500)
  const again = await sandbox.commands.connect(handle.pid)
  await assert.rejects(again.wait(), (error) => error.exitCode === 5)
})

await check('many at once', async () => {
  const results = await Promise.all([...Array(100).keys()].map((i) => sandbox.commands.run(`echo ${i}`)))
  results.forEach((result, i) => assert.equal(result.stdout, `${i}\n`))
})

await check('pty', async () => {
  let output = ''
  const decoder = new TextDecoder()
  const handle = await sandbox.pty.create({
    cols: 80, rows: 24, envs: { ABC: '123' }, timeoutMs: 0, onData: (data) => { output += decoder.decode(data) },
  })
  const send = (text) => sandbox.pty.sendInput(handle.pid, new TextEncoder().encode(text))
  await send('echo "<$ABC>"; tput cols\n')
  await until(() => /<123>\r\n80\r\n/.test(output), 'the answer')
  await sandbox.pty.resize(handle.pid, { cols: 100, rows: 24 })
  await send('tput cols\n')
  await until(() => /100\r\n/.test(output), 'the new size')
  await handle.disconnect()
  let rest = ''
  const again = await sandbox.pty.connect(handle.pid, { onData: (data) => { rest += decoder.decode(data) } })
  await send('echo again; exit\n')
  assert.equal((await again.wait()).exitCode, 0)
  assert.match(rest, /again/)
  const second = await sandbox.pty.create({ cols: 10, rows: 5, onData: () => {}, timeoutMs: 0 })
  assert.equal(await sandbox.pty.kill(second.pid), true)
  assert.equal(await sandbox.pty.kill(second.pid), false)
})

await check('files: write, read, formats', async () => {
  const info = await sandbox.files.write('dir/a b.txt', 'grüße')
  assert.deepEqual([info.name, info.type, info.path], ['a b.txt', 'file', '/home/user/dir/a b.txt'])
  assert.equal(await sandbox.files.read('dir/a b.txt'), 'grüße')
  const bytes = new Uint8Array(100000).map((_, i) => i % 256)
  await sandbox.files.write('/tmp/bytes', bytes.buffer)
  assert.deepEqual(await sandbox.files.read('/tmp/bytes', { format: 'bytes' }), bytes)
  assert.equal((await sandbox.files.read('/tmp/bytes', { format: 'blob' })).size, 100000)
  let count = 0
  for await (const chunk of await sandbox.files.read('/tmp/bytes', { format: 'stream' })) count += chunk.length
  assert.equal(count, 100000)
  await sandbox.files.write('empty', '')
  assert.equal(await sandbox.files.read('empty'), '')
  assert.equal((await sandbox.files.read('empty', { format: 'bytes' })).length, 0)
  await assert.rejects(sandbox.files.read('missing'), e2b.NotFoundError)
  await assert.rejects(sandbox.files.read('missing', { format: 'stream' }), e2b.NotFoundError)
  await sandbox.files.write('rooted', 'x', { user: 'root' })
  assert.equal(await sandbox.files.read('/root/rooted'), 'x')
})

await check('files: many, octet-stream, gzip, streams', async () => {
  const files = [...Array(10).keys()].map((i) => ({ path: `many/${i}/file`, data: `data ${i}` }))
  const written = await sandbox.files.write(files)
  assert.deepEqual(written.map((each) => each.path), files.map((each) => `/home/user/${each.path}`))
  assert.equal(await sandbox.files.read('many/7/file'), 'data 7')
  assert.deepEqual(await sandbox.files.write([]), [])
  await sandbox.files.write('octet', 'octet', { useOctetStream: true })
  assert.equal(await sandbox.files.read('octet'), 'octet')
  const text = 'compressible '.repeat(10000)
  await sandbox.files.write('zipped', text, { gzip: true })
  assert.equal(await sandbox.files.read('zipped'), text)
  assert.equal(await sandbox.files.read('zipped', { gzip: true }), text)
  const stream = new Blob([text]).stream()
  await sandbox.files.write('streamed', stream)
  assert.equal((await sandbox.files.getInfo('streamed')).size, text.length)
})

await check('files: list, info, rename, remove, make dir', async () => {
  assert.equal(await sandbox.files.makeDir('tree/sub/deep'), true)
  assert.equal(await sandbox.files.makeDir('tree/sub/deep'), false)
  await sandbox.files.write('tree/b.txt', 'b')
  await sandbox.files.write('tree/sub/c.txt', 'c')
  const names = async (depth) => (await sandbox.files.list('tree', { depth })).map((each) => each.path.slice(16))
  assert.deepEqual(await names(1), ['b.txt', 'sub'])
  assert.deepEqual(await names(3), ['b.txt', 'sub', 'sub/c.txt', 'sub/deep'])
  await assert.rejects(sandbox.files.list('tree', { depth: 0 }), e2b.InvalidArgumentError)
  const info = await sandbox.files.getInfo('tree/b.txt')
  assert.deepEqual([info.name, info.type, info.size, info.mode, info.permissions, info.owner, info.group],
    ['b.txt', 'file', 1, 0o644, '-rw-r--r--', 'user', 'user'])
  assert.ok(Math.abs(info.modifiedTime - Date.now()) < 10000)
  await sandbox.commands.run('ln -s b.txt tree/link')
  const link = await sandbox.files.getInfo('tree/link')
  assert.deepEqual([link.type, link.symlinkTarget], ['file', '/home/user/tree/b.txt'])
  const moved = await sandbox.files.rename('tree/b.txt', 'tree/new/d.txt')
  assert.equal(moved.path, '/home/user/tree/new/d.txt')
  assert.equal(await sandbox.files.exists('tree/b.txt'), false)
  assert.equal(await sandbox.files.exists('tree/new/d.txt'), true)
  await assert.rejects(sandbox.files.rename('tree/nothing', 'x'), e2b.NotFoundError)
  await sandbox.files.remove('tree')
  await sandbox.files.remove('tree')
  assert.equal(await sandbox.files.exists('tree'), false)
  await assert.rejects(sandbox.files.getInfo('tree'), e2b.NotFoundError)
})

await check('files: metadata', async () => {
  const written = await sandbox.files.write('meta', 'x', { metadata: { author: 'me', 'kind-of': 'a thing' } })
  if (!written.metadata) return // a file system without extended attributes
  assert.deepEqual((await sandbox.files.getInfo('meta')).metadata, { author: 'me', 'kind-of': 'a thing' })
  await sandbox.files.write('meta', 'y')
  assert.equal((await sandbox.files.getInfo('meta')).metadata, undefined)
})

await check('files: watch', async () => {
  await sandbox.files.makeDir('watched/sub')
  const events = []
  let exits = 0
  const handle = await sandbox.files.watchDir('watched', (event) => events.push(event), {
    recursive: true, includeEntry: true, timeoutMs: 0, onExit: () => { exits += 1 },
  })
  await sandbox.files.write('watched/sub/file', 'hello')
  await until(() => events.some((event) => event.type === 'write'), 'the write')
  assert.deepEqual([events[0].type, events[0].name], ['create', 'sub/file'])
  const written = events.find((event) => event.type === 'write')
  assert.equal(written.entry.path, '/home/user/watched/sub/file')
  await sandbox.files.rename('watched/sub/file', 'watched/sub/other')
  await sandbox.files.remove('watched/sub/other')
  await until(() => events.some((event) => event.type === 'remove'), 'the removal')
  assert.ok(events.some((event) => event.type === 'rename' && event.name === 'sub/file'))
  await handle.stop()
  await until(() => exits === 1, 'the exit')
  await assert.rejects(sandbox.files.watchDir('nowhere', () => {}), e2b.NotFoundError)
})

await check('signed addresses', async () => {
  await sandbox.files.write('signed.txt', 'signed')
  // The address names the sandbox by its host, which leads here only with the name in a header.
  const fetchUrl = (url, options = {}) => new Promise((resolve, reject) => {
    const there = new URL(url)
    const here = new URL(E2B_API_URL)
    const request = http.request({
      host: here.hostname, port: here.port, path: there.pathname + there.search, method: options.method || 'GET',
      headers: { Host: sandbox.getHost(49983), ...options.headers },
    }, (response) => {
      let body = ''
      response.on('data', (chunk) => { body += chunk })
      response.on('end', () => resolve({ status: response.statusCode, body }))
    })
    request.on('error', reject)
    request.end(options.body)
  })
  const url = await sandbox.downloadUrl('signed.txt', { useSignatureExpiration: 60 })
  assert.deepEqual(await fetchUrl(url), { status: 200, body: 'signed' })
  const old = await fetchUrl(await sandbox.downloadUrl('signed.txt', { useSignatureExpiration: -10 }))
  assert.equal(old.status, 401)
  assert.deepEqual(JSON.parse(old.body), { code: 401, message: 'signature is already expired' })
  const up = await sandbox.uploadUrl('up.txt')
  const done = await fetchUrl(up, {
    method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: 'uploaded',
  })
  assert.equal(done.body, '[{"name":"up.txt","path":"/home/user/up.txt","type":"file"}]')
  assert.equal(await sandbox.files.read('up.txt'), 'uploaded')
  assert.equal((await fetchUrl(url.replace('signature=v1_', 'signature=v1_x'))).status, 401)
})

const getPage = (host, headers = {}) => new Promise((resolve, reject) => {
  const here = new URL(E2B_API_URL)
  http.get({ host: here.hostname, port: here.port, path: '/', headers: { Host: host, ...headers } }, (response) => {
    let body = ''
    response.on('data', (chunk) => { body += chunk })
    response.on('end', () => resolve({ status: response.statusCode, body }))
  }).on('error', reject)
})

await check('a service of the sandbox', async () => {
  await sandbox.files.write('site/index.html', '<h1>hello</h1>')
  const server = await sandbox.commands.run('exec python3 -m http.server 23456', {
    background: true, cwd: '/home/user/site', timeoutMs: 0,
  })
  let page
  await until(async () => {
    page = await getPage(sandbox.getHost(23456))
    return page.status === 200
  }, 'the service')
  assert.equal(page.body, '<h1>hello</h1>')
  await server.kill()
  const closed = await getPage(sandbox.getHost(23456))
  assert.equal(closed.status, 502)
  assert.match(JSON.parse(closed.body).message, /port is not open/)
})

if (sandbox.git) {
  await check('git', async () => {
    await sandbox.git.init('repo', { initialBranch: 'main' })
    await sandbox.git.configureUser('Somebody', 'somebody@example.com')
    await sandbox.files.write('repo/readme', 'hello')
    assert.equal((await sandbox.git.status('repo')).hasUntracked, true)
    await sandbox.git.add('repo')
    await sandbox.git.commit('repo', 'It begins')
    const status = await sandbox.git.status('repo')
    assert.deepEqual([status.isClean, status.currentBranch], [true, 'main'])
    await sandbox.git.createBranch('repo', 'other')
    assert.deepEqual((await sandbox.git.branches('repo')).currentBranch, 'other')
  })
}

await check('pause and resume with what runs', async () => {
  const handle = await sandbox.commands.run('i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done', {
    background: true, timeoutMs: 0,
  })
  await until(() => handle.stdout.length > 4, 'some output')
  assert.equal(await sandbox.pause(), true)
  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(handle.wait())
  await assert.rejects(sandbox.commands.run('true'), e2b.SandboxError)
  await sandbox.connect()
  let more = ''
  const again = await sandbox.commands.connect(handle.pid, { onStdout: (data) => { more += data }, timeoutMs: 0 })
  await until(() => more !== '', 'more output')
  assert.ok(parseInt(more, 10) > 1)
  await again.kill()
})

await check('killed while a command runs', async () => {
  const handle = await sandbox.commands.run('sleep 1000', { background: true, timeoutMs: 0 })
  const waiting = assert.rejects(handle.wait(), (error) => {
    assert.ok(error instanceof e2b.TimeoutError, String(error))
    assert.match(error.message, /killed or reached its end of life/)
    return true
  })
  assert.equal(await sandbox.isRunning(), true)
  await sandbox.kill()
  await waiting
  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(sandbox.commands.run('true'), e2b.SandboxError)
  await assert.rejects(sandbox.files.read('x'))
  const gone = await getPage(sandbox.getHost(23456))
  assert.equal(gone.status, 502)
  assert.deepEqual(JSON.parse(gone.body), {
    sandboxId: sandbox.sandboxId, message: 'The sandbox was not found', code: 502,
  })
})

console.log(`js ${SDK_VERSION}, inside: ${passed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)
