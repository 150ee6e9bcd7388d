"""Runs E2B's own Python SDK against sandboxes of the local server: what it can do inside of E2B's it can do there."""

import asyncio
import json
import os
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

import e2b
from e2b import AsyncSandbox, FilesystemEventType, Sandbox

VERSION = os.environ["SDK_VERSION"]
API_URL = os.environ["E2B_API_URL"]
counts = {"passed": 0, "failed": 0}
sandbox = Sandbox.create(envs={"COLOUR": "blue"})


def check(fn):
    try:
        if asyncio.iscoroutinefunction(fn):
            asyncio.run(fn())
        else:
            fn()
        counts["passed"] += 1
    except Exception:  # noqa: BLE001 - every failure is counted and shown
        counts["failed"] += 1
        print("FAILED python %s: %s: %s" % (VERSION, fn.__name__, traceback.format_exc()))


def raises(kind, fn, *args, **named):
    try:
        fn(*args, **named)
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


def gone(error):
    # Older releases say it in other words.
    return "killed or reached its end of life" in str(error) or "sandbox timeout" in str(error)


def until(condition, what):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain for " + what)


@check
def run():
    result = sandbox.commands.run('echo "Hello,\nWorld!"; echo "$COLOUR $MINE" >&2', envs={"MINE": "x"})
    assert (result.stdout, result.stderr, result.exit_code) == ("Hello,\nWorld!\n", "blue x\n", 0), result
    error = raises(e2b.CommandExitException, sandbox.commands.run, "echo out; echo err >&2; exit 7")
    assert (error.exit_code, error.stdout, error.stderr) == (7, "out\n", "err\n"), error
    raises(e2b.CommandExitException, sandbox.commands.run, "read line")
    assert sandbox.commands.run("whoami; pwd", user="root").stdout == "root\n/root\n"
    assert sandbox.commands.run("pwd", cwd="/tmp").stdout == "/tmp\n"
    raises(e2b.InvalidArgumentException, sandbox.commands.run, "pwd", cwd="/nowhere")


@check
def run_streamed():
    seen = []
    result = sandbox.commands.run(
        "echo one; sleep 0.2; echo two; echo three >&2", on_stdout=seen.append, on_stderr=seen.append
    )
    assert seen[0] == "one\n" and "".join(seen[:2]) in ("one\ntwo\n", "one\nthree\n"), seen
    assert result.stderr == "three\n"
    assert sandbox.commands.run("printf '\\360\\237'; sleep 0.1; printf '\\230\\200'").stdout == "\U0001f600"
    bad = sandbox.commands.run("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'")
    assert bad.stdout == "a" * 8191 + "\ufffd"
    assert len(sandbox.commands.run("seq 1 200000").stdout) == 1288895


@check
def run_timeout():
    raises(e2b.TimeoutException, sandbox.commands.run, "sleep 30", timeout=0.3)
    until(lambda: not any("sleep 30" in p.args for p in sandbox.commands.list()), "the end of sleep")


@check
def background():
    handle = sandbox.commands.run("cat", background=True, stdin=True, timeout=0)
    sandbox.commands.send_stdin(handle.pid, "hällo\n")
    assert any(p.pid == handle.pid and p.args == ["-l", "-c", "cat"] for p in sandbox.commands.list())
    out, _, _ = next(iter(handle))
    assert out == "hällo\n", out
    sandbox.commands.kill(handle.pid)
    again = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    second = sandbox.commands.connect(again.pid, timeout=0)
    assert again.kill() is True
    raises(e2b.CommandExitException, second.wait)
    raises(e2b.CommandExitException, sandbox.commands.run, "kill -0 %d" % again.pid)
    assert sandbox.commands.kill(999999) is False
    raises(e2b.NotFoundException, sandbox.commands.connect, 999999)


@check
def disconnected():
    handle = sandbox.commands.run("sleep 0.3; exit 5", background=True, timeout=0)
    handle.disconnect()
    time.sleep(0.5)
    assert raises(e2b.CommandExitException, sandbox.commands.connect(handle.pid).wait).exit_code == 5


@check
def pty():
    output = bytearray()
    handle = sandbox.pty.create(e2b.PtySize(rows=24, cols=80), envs={"ABC": "123"}, timeout=0)
    reader = threading.Thread(target=lambda: handle.wait(on_pty=output.extend))
    reader.start()
    sandbox.pty.send_stdin(handle.pid, b'echo "<$ABC>"; tput cols\n')
    until(lambda: b"<123>\r\n80\r\n" in output, "the answer")
    sandbox.pty.resize(handle.pid, e2b.PtySize(rows=24, cols=100))
    sandbox.pty.send_stdin(handle.pid, b"tput cols; exit\n")
    reader.join(20)
    assert not reader.is_alive()
    assert b"100\r\n" in output
    assert sandbox.pty.kill(handle.pid) is False


@check
def files():
    info = sandbox.files.write("dir/a b.txt", "grüße")
    assert (info.name, info.path) == ("a b.txt", "/home/user/dir/a b.txt"), info
    assert sandbox.files.read("dir/a b.txt") == "grüße"
    data = bytes(range(256)) * 400
    sandbox.files.write("/tmp/bytes", data)
    assert sandbox.files.read("/tmp/bytes", format="bytes") == data
    assert b"".join(sandbox.files.read("/tmp/bytes", format="stream")) == data
    sandbox.files.write("empty", "")
    assert sandbox.files.read("empty") == ""
    raises(e2b.NotFoundException, sandbox.files.read, "missing")
    raises(e2b.NotFoundException, sandbox.files.read, "missing", format="stream")
    written = sandbox.files.write_files([{"path": "many/%d" % i, "data": str(i)} for i in range(5)])
    assert [each.path for each in written] == ["/home/user/many/%d" % i for i in range(5)]
    text = "compressible " * 10000
    sandbox.files.write("zipped", text, gzip=True)
    assert sandbox.files.read("zipped") == text
    assert sandbox.files.read("zipped", gzip=True) == text
    sandbox.files.write("octet", text, use_octet_stream=True)
    assert sandbox.files.get_info("octet").size == len(text)


@check
def tree():
    assert sandbox.files.make_dir("tree/sub/deep") is True
    assert sandbox.files.make_dir("tree/sub/deep") is False
    sandbox.files.write("tree/b.txt", "b")
    paths = [each.path for each in sandbox.files.list("tree", depth=3)]
    assert paths == ["/home/user/tree/" + name for name in ("b.txt", "sub", "sub/deep")], paths
    info = sandbox.files.get_info("tree/b.txt")
    assert (info.size, info.mode, info.permissions, info.owner) == (1, 0o644, "-rw-r--r--", "user"), info
    assert sandbox.files.rename("tree/b.txt", "tree/new/d").path == "/home/user/tree/new/d"
    assert sandbox.files.exists("tree/new/d") and not sandbox.files.exists("tree/b.txt")
    sandbox.files.remove("tree")
    sandbox.files.remove("tree")
    raises(e2b.NotFoundException, sandbox.files.list, "tree")


@check
def metadata():
    written = sandbox.files.write("meta", "x", metadata={"author": "me"})
    if written.metadata:  # else a file system without extended attributes
        assert sandbox.files.get_info("meta").metadata == {"author": "me"}


@check
def watch():
    sandbox.files.make_dir("watched")
    handle = sandbox.files.watch_dir("watched")
    sandbox.files.write("watched/file", "hello")
    events = handle.get_new_events()
    assert len(events) == 3, events
    assert events[0].type == FilesystemEventType.CREATE and events[0].name == "file", events
    assert handle.get_new_events() == []
    handle.stop()
    raises(e2b.SandboxException, handle.get_new_events)
    raises(e2b.NotFoundException, sandbox.files.watch_dir, "nowhere")


@check
async def asynchronous():
    other = await AsyncSandbox.create()
    results = await asyncio.gather(*(other.commands.run("echo %d" % i) for i in range(50)))
    assert [result.stdout for result in results] == ["%d\n" % i for i in range(50)]
    events, exits = [], []
    await other.files.make_dir("watched/sub")
    handle = await other.files.watch_dir(
        "watched", events.append, on_exit=exits.append, recursive=True, include_entry=True, timeout=0
    )
    await other.files.write("watched/sub/file", "hello")
    for _ in range(200):
        if any(event.type == FilesystemEventType.WRITE for event in events):
            break
        await asyncio.sleep(0.02)
    assert events[0].name == "sub/file" and events[0].type == FilesystemEventType.CREATE, events
    assert events[-1].entry.path == "/home/user/watched/sub/file"
    await handle.stop()
    assert len(exits) == 1, exits
    output = bytearray()
    shell = await other.pty.create(e2b.PtySize(rows=24, cols=80), output.extend, timeout=0)
    await other.pty.send_stdin(shell.pid, b"echo $((6 * 7)); exit\n")
    assert (await shell.wait()).exit_code == 0
    assert b"42\r\n" in output
    sleeper = await other.commands.run("sleep 1000", background=True, timeout=0)
    waiting = asyncio.ensure_future(sleeper.wait())
    await asyncio.sleep(0.1)
    await other.kill()
    try:
        await waiting
        raise AssertionError("the wait ended well")
    except e2b.TimeoutException as error:
        assert gone(error), error


def fetch(url, body=None, port=49983):
    there = urllib.parse.urlsplit(url)
    request = urllib.request.Request(
        API_URL + there.path + ("?" + there.query if there.query else ""), data=body,
        headers={"Host": sandbox.get_host(port), "Content-Type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@check
def signed():
    sandbox.files.write("signed.txt", "signed")
    assert fetch(sandbox.download_url("signed.txt", use_signature_expiration=60)) == (200, b"signed")
    status, body = fetch(sandbox.download_url("signed.txt", use_signature_expiration=-10))
    assert (status, json.loads(body)) == (401, {"code": 401, "message": "signature is already expired"})
    status, body = fetch(sandbox.upload_url("up.txt"), body=b"uploaded")
    assert (status, json.loads(body)) == (200, [{"name": "up.txt", "path": "/home/user/up.txt", "type": "file"}])
    assert sandbox.files.read("up.txt") == "uploaded"


@check
def service():
    sandbox.files.write("site/index.html", "hello")
    server = sandbox.commands.run("exec python3 -m http.server 23457", background=True, cwd="/home/user/site", timeout=0)
    until(lambda: fetch("http://x/", port=23457) == (200, b"hello"), "the service")
    server.kill()
    status, body = fetch("http://x/", port=23457)
    assert status == 502 and "port is not open" in json.loads(body)["message"], body


@check
def git():
    if not hasattr(sandbox, "git"):
        return
    sandbox.git.init("repo", initial_branch="main")
    sandbox.git.configure_user("Somebody", "somebody@example.com")
    sandbox.files.write("repo/readme", "hello")
    assert sandbox.git.status("repo").has_untracked
    sandbox.git.add("repo")
    sandbox.git.commit("repo", "It begins")
    status = sandbox.git.status("repo")
    assert status.is_clean and status.current_branch == "main", status


@check
def pause():
    handle = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    sandbox.pause()
    assert sandbox.is_running() is False
    raises(Exception, handle.wait)
    sandbox.connect()
    assert any(p.pid == handle.pid for p in sandbox.commands.list())
    assert sandbox.files.read("up.txt") == "uploaded"


@check
def killed():
    handle = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    timer = threading.Timer(0.2, sandbox.kill)
    timer.start()
    error = raises(e2b.TimeoutException, handle.wait)
    assert gone(error), error
    timer.join()
    assert sandbox.is_running() is False
    raises(e2b.SandboxException, sandbox.commands.run, "true")


print("python %s, inside: %d passed, %d failed" % (VERSION, counts["passed"], counts["failed"]))
raise SystemExit(1 if counts["failed"] else 0)
