"""Runs E2B's own Python SDK against the local server: what it can do here it can do there.

run.sh starts the servers and puts their addresses into the environment.
"""

import datetime
import os
import sys
import time
import traceback

import e2b
from e2b import Sandbox, SandboxQuery, SandboxState, Template, Volume

VERSION = os.environ["SDK_VERSION"]
MINOR = int(VERSION.split(".")[1])
RUN = "run-%d-%d" % (os.getpid(), time.time())

counts = {"passed": 0, "failed": 0}


def check(fn):
    try:
        fn()
        counts["passed"] += 1
    except Exception:  # noqa: BLE001 - every failure is counted and shown
        counts["failed"] += 1
        print("FAILED python %s: %s: %s" % (VERSION, fn.__name__, traceback.format_exc()))


def raises(kind, fn, text=""):
    try:
        fn()
    except kind as error:
        assert text in str(error), "%r does not contain %r" % (str(error), text)
        return error
    raise AssertionError("nothing was raised")


def near(actual, wanted):
    assert abs(actual - wanted) < 3, "%r is not about %r" % (actual, wanted)


def collect(paginator):
    items = []
    while paginator.has_next:
        items.extend(paginator.next_items())
    return items


def ids(items):
    return [item.sandbox_id for item in items]


def now():
    return datetime.datetime.now(datetime.timezone.utc)


@check
def create_with_defaults():
    with Sandbox.create() as sandbox:
        info = sandbox.get_info()
        assert info.name == "base" and info.state == SandboxState.RUNNING, info
        assert (info.end_at - info.started_at).total_seconds() == 300
        assert sandbox.is_running()
    assert not sandbox.is_running()


@check
def create_with_everything():
    metadata = {"run": RUN, "kind": "full", "key &=%+ü": "value &=%+/ \U0001f600"}
    sandbox = Sandbox.create(
        "code-interpreter-v1", timeout=120, metadata=metadata, envs={"A": "b"}, allow_internet_access=False,
        lifecycle={"on_timeout": "pause", "auto_resume": True},
        network={"deny_out": ["0.0.0.0/0"], "allow_out": ["example.com"], "allow_public_traffic": False},
    )
    assert sandbox.traffic_access_token
    info = Sandbox.get_info(sandbox.sandbox_id)
    assert info.metadata == metadata and info.cpu_count == 2 and info.memory_mb == 1024, info
    assert info.allow_internet_access is False and info.envd_version == "0.6.4", info
    assert (info.end_at - info.started_at).total_seconds() == 120
    assert ids(collect(Sandbox.list(query=SandboxQuery(metadata=metadata)))) == [sandbox.sandbox_id]
    assert sandbox.kill() is True


@check
def pages_and_filters():
    made = [Sandbox.create(metadata={"run": RUN, "page": "yes"}) for _ in range(3)]
    made[1].pause()
    newest = ids(made)[::-1]
    metadata = {"run": RUN, "page": "yes"}
    pages = Sandbox.list(query=SandboxQuery(metadata=metadata), limit=1)
    assert ids(pages.next_items()) == newest[:1] and pages.has_next and pages.next_token
    assert ids(collect(pages)) == newest[1:] and not pages.has_next and pages.next_token is None
    raises(Exception, pages.next_items)

    def found(**query):
        return ids(collect(Sandbox.list(query=SandboxQuery(metadata=metadata, **query))))

    assert found(state=[SandboxState.RUNNING]) == [newest[0], newest[2]]
    assert found(state=[SandboxState.PAUSED]) == [newest[1]]
    assert found(state=[SandboxState.RUNNING, SandboxState.PAUSED]) == newest
    started = made[2].get_info().started_at
    assert found(started_after=started) == newest[:1]
    assert found(started_after=started + datetime.timedelta(microseconds=1)) == []
    assert found(template="base") == newest and found(template="desktop") == []
    assert found(template="no-such-template") == []
    assert ids(collect(Sandbox.list(query=SandboxQuery(metadata=metadata), order="asc", limit=2))) == newest[::-1]
    for sandbox in made:
        assert sandbox.kill()


@check
def pause_connect():
    sandbox = Sandbox.create(timeout=60)
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert not sandbox.is_running()
    assert sandbox.get_info().state == SandboxState.PAUSED
    raises(e2b.SandboxNotFoundException, lambda: sandbox.set_timeout(10))
    again = Sandbox.connect(sandbox.sandbox_id, timeout=90)
    info = again.get_info()
    assert again.sandbox_id == sandbox.sandbox_id and info.state == SandboxState.RUNNING
    assert (info.end_at - info.started_at).total_seconds() == 90 and again.is_running()
    sandbox.connect(timeout=10)
    assert sandbox.get_info().end_at == info.end_at
    sandbox.connect(timeout=600)
    near((sandbox.get_info().end_at - now()).total_seconds(), 600)
    assert sandbox.kill()


@check
def set_timeout():
    sandbox = Sandbox.create(lifecycle={"on_timeout": "pause"})
    sandbox.set_timeout(30)
    near((sandbox.get_info().end_at - now()).total_seconds(), 30)
    sandbox.set_timeout(0)
    assert sandbox.get_info().state == SandboxState.PAUSED
    assert sandbox.kill()
    mortal = Sandbox.create(timeout=1)
    time.sleep(1.1)
    assert not mortal.is_running()
    raises(e2b.SandboxNotFoundException, mortal.get_info)


@check
def kill_and_what_is_gone():
    sandbox = Sandbox.create()
    assert Sandbox.kill(sandbox.sandbox_id) is True
    assert Sandbox.kill(sandbox.sandbox_id) is False
    assert sandbox.kill() is False
    gone = e2b.SandboxNotFoundException
    raises(gone, lambda: Sandbox.get_info(sandbox.sandbox_id))
    raises(gone, lambda: Sandbox.connect(sandbox.sandbox_id))
    raises(gone, lambda: Sandbox.set_timeout(sandbox.sandbox_id, 10))
    raises(gone, lambda: Sandbox.pause(sandbox.sandbox_id))
    raises(gone, lambda: Sandbox.get_metrics(sandbox.sandbox_id))


@check
def errors():
    raises(e2b.SandboxException, lambda: Sandbox.create("no-such-template"), "404")
    raises(e2b.SandboxException, lambda: Sandbox.create(timeout=360000), "24 hours")
    raises(e2b.SandboxException, lambda: Sandbox.create(network={"deny_out": ["example.com"]}), "400")
    key = "e2b_" + "f" * 40
    raises(e2b.AuthenticationException, lambda: Sandbox.create(api_key=key), "Invalid API key")
    raises(e2b.AuthenticationException, lambda: Sandbox.list(api_key=key).next_items())


@check
def rate_limit_and_quota():
    url = os.environ["LIMITED_URL"]
    options = {"api_url": url, "retries": 0} if MINOR >= 49 else {"api_url": url}
    Sandbox.list(**options).next_items()
    Sandbox.list(**options).next_items()
    raises(e2b.RateLimitException, lambda: Sandbox.list(**options).next_items())
    if MINOR >= 49:
        start = time.monotonic()
        Sandbox.list(api_url=url).next_items()
        assert time.monotonic() - start >= 0.9, "waited as told"
    quota = os.environ["QUOTA_URL"]
    Sandbox.create(api_url=quota)
    start = time.monotonic()
    raises(e2b.RateLimitException, lambda: Sandbox.create(api_url=quota), "maximum number of concurrent")
    assert time.monotonic() - start < 0.3, "a quota is not waited for"


@check
def metrics():
    with Sandbox.create() as sandbox:
        time.sleep(1)
        point = sandbox.get_metrics()[0]
        assert point.cpu_used_pct > 0 and point.mem_total > point.mem_used, point
        assert sandbox.get_metrics(end=now() - datetime.timedelta(hours=1)) == []


@check
def network_fork_snapshots():
    with Sandbox.create() as sandbox:
        sandbox.update_network({"deny_out": ["8.8.8.8"]})
        forks = sandbox.fork(count=2, timeout=60)
        assert len(set(ids(forks))) == 2
        for fork in forks:
            assert fork.kill()
        snapshot = sandbox.create_snapshot(name="acceptance")
        assert len(snapshot.names) == 1
        assert Sandbox.create(snapshot.snapshot_id).kill()
        listed = collect(sandbox.list_snapshots())
        assert [each.snapshot_id for each in listed] == [snapshot.snapshot_id]
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False


@check
def templates_and_volumes():
    assert Template.exists("base") is True
    assert Template.exists("no-such-template") is False
    assert Template.exists("other-team-secret") is True
    volume = Volume.create(RUN)
    with Sandbox.create(volume_mounts={"/mnt/data": volume}) as sandbox:
        mount = sandbox.get_info().volume_mounts[0]
        assert (mount["name"], mount["path"]) == (RUN, "/mnt/data"), mount
    assert Volume.destroy(volume.volume_id) is True
    assert Volume.destroy(volume.volume_id) is False


@check
def idempotency_key():
    if MINOR < 63:
        return
    first = Sandbox.create(idempotency_key=RUN)
    again = Sandbox.create(idempotency_key=RUN)
    assert first.sandbox_id == again.sandbox_id
    assert first.kill()


@check
def nothing_is_left():
    assert ids(collect(Sandbox.list())) == []


print("python %s: %d passed, %d failed" % (VERSION, counts["passed"], counts["failed"]))
sys.exit(1 if counts["failed"] else 0)
