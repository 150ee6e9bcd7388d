---@meta e2b.core
-- What the C core looks like from Lua. Its users are lua/e2b/client.lua and lua/e2b/loop/*.lua; nothing here is part of
-- the public API.

--- Where requests go and what every one of them carries (csrc/target.c). Immutable; its headers are zeroed when it is
--- freed. tostring() shows scheme and host only.
---@class e2b.core.target

--- One HTTP exchange (csrc/transfer.c). Prepared by core.transfer, sent by engine:start, alive until its "done" was
--- told of.
---@class e2b.core.transfer
local transfer = {}

--- The one engine of a Lua state (csrc/engine.c).
---@class e2b.core.engine
local engine = {}

--- Cancels its transfer when it is collected (csrc/guard.c).
---@class e2b.core.guard
local guard = {}

--- A thread that watches the engine's descriptor for a host that can only wait for sockets of its own (csrc/bridge.c).
---@class e2b.core.bridge
local bridge = {}

--- One end of what ties a program to the process that started it (csrc/leash.c). Closed or collected it is the end of
--- the leash, but for a forked child's copy. Nothing about it blocks.
---@class e2b.core.leash
local leash = {}

--- A row of the table of REST calls.
---@class e2b.core.call
---@field name string
---@field method string
---@field path string template, with {parameters}
---@field idempotent boolean may be sent again when a connection died
---@field rpc boolean Connect RPC of a sandbox's daemon
---@field stream boolean its answer is read with transfer:event()

--- "connect": a stream of events breaks its protocol, or the server ended it with an error (error_code and message say
--- which); "cut": its body ended before it did.
---@alias e2b.core.cause "http"|"curl"|"deadline"|"cancelled"|"too_large"|"json"|"shape"|"sink"|"source"|"connect"|"cut"

--- What transfer:result() tells about a failure.
---@class e2b.core.facts
---@field cause e2b.core.cause
---@field text string for people, without secrets
---@field sent "no"|"maybe"|"yes" "no": surely nothing of the request left; "yes": a whole head of an answer came back
---@field status? integer
---@field curl? integer CURLcode
---@field message? string what E2B's JSON error body says
---@field error_code? string the same body's code; of Connect's errors the word, as "not_found"
---@field code? integer the same body's, when it is a number from 400 to 599: the status as the service itself sees it
---@field has_body? boolean it was there
---@field retry_after? string the header as it came
---@field request_id? string X-E2B-Trace-ID
---@field date? integer the Date header, seconds since the epoch
---@field content_type? string
---@field location_host? string host (and port) a 3xx points to; never followed
---@field replay? boolean libcurl wanted to send a non-idempotent request again and was refused
---@field deadline? "request_timeout"|"connect_timeout"|"idle_timeout" with cause "deadline": which clock ran out
---@field os_errno? integer with cause "sink" and "source"
---@field primary_ip? string

---@class e2b.core.target_options
---@field url string http:// or https://, host, port, path; no query, no credentials; slashes at its end are dropped
---@field headers? { [1]: string, [2]: string }[] names and values
---@field user_agent? string
---@field proxy? string|false a proxy's URL; false: none, whatever the environment says; nil: the environment's
---@field ca_file? string PEM file to trust instead of the system's

---@class e2b.core.transfer_options
---@field timeout? number seconds from start() on, also while it waits for a connection; 0 or nil: none
---@field connect_timeout? number seconds for name, TCP and TLS
---@field idle_timeout? number seconds between two bytes of a body, and from the end of a request's streamed body to the
---  answer; doesn't run while the transfer is paused for us
---@field max_bytes? integer cap on the answer's bytes after decoding
---@field headers? string[] name, value, name, value …; each takes the place of the target's header of that name
---@field stream? boolean the body is read with transfer:read(); implied for rows that are streams of events
---@field gzip? boolean ask for a compressed answer; streams of events never are
---@field sink? integer descriptor that a successful body is written to; never closed
---@field source? integer|"chunks" descriptor that the request's body is read from, or transfer:write()
---@field source_size? integer bytes of the source; announced as Content-Length and checked
---@field high_water? integer bytes buffered before a stream pauses (262144)

---@class e2b.core.libcurl
---@field version string
---@field number integer as 0x075801
---@field ssl? string
---@field prereq boolean attempts are counted; without, creates use a connection of their own
---@field quick_exit boolean deadlines hold while a name is being resolved
---@field http2 boolean
---@field async_dns boolean

---@class e2b.core.stats
---@field engines integer with a multi handle of libcurl's
---@field targets integer
---@field transfers integer not collected yet
---@field in_flight integer
---@field sockets integer open connections
---@field easies integer libcurl's handles

---@class e2b.core
---@field ABI integer raised when lua/e2b would not work with an older core
---@field calls table<string, e2b.core.call> the REST calls by name
local core = {}

--- The monotonic clock.
---@return number seconds
function core.now() end

--- The id of this process.
---@return integer pid
function core.getpid() end

--- What the libcurl in this process is and can do.
---@return e2b.core.libcurl
function core.libcurl() end

--- What is alive: targets and transfers not collected yet, transfers in flight, open connections, libcurl's handles.
---@return e2b.core.stats
function core.stats() end

--- RFC 3339 to seconds since the epoch.
---@param text string offsets, fractions (cut), lower-case t and z, leap seconds
---@return integer|nil seconds nil: not a time
function core.time_parse(text) end

--- Seconds since the epoch to RFC 3339, in UTC; milliseconds only when there are any.
---@param seconds number
---@return string text "2026-01-02T03:04:05Z"
function core.time_format(seconds) end

--- Percent-encodes all but unreserved characters: fit for one path segment or one query value.
---@param text string
---@return string
function core.escape(text) end

--- null is absent, whole numbers are integers, 100 levels at most.
---@param text string
---@return any value
---@return string|nil message with a nil value: what is wrong
function core.json_decode(text) end

--- JSON of a table; whole numbers go out as integers.
---@param value any
---@return string|nil text
---@return string|nil message
function core.json_encode(value) end

--- Raises on wrong types; what can't be sent (control characters, another scheme) comes back as a message without the
--- value.
---@param options e2b.core.target_options
---@return e2b.core.target|nil target
---@return string|nil message
function core.target(options) end

--- Prepares a transfer; nothing is sent. Raises on wrong types and unknown names.
---@param target e2b.core.target
---@param call string name of a row; "raw" takes method, path, query, body, content_type
---@param args? table path parameters by name, `query`, `body`
---@param options? e2b.core.transfer_options
---@return e2b.core.transfer|nil transfer
---@return string|nil message what is wrong with the arguments
function core.transfer(target, call, args, options) end

--- What is kept by whoever needs a transfer: collecting it cancels the transfer, which would run on otherwise. One for
--- each transfer at most.
---@param which e2b.core.transfer
---@return e2b.core.guard guard
function core.guard(which) end

--- Makes the engine's bridge, of which there may be one at a time. The engine is in socket mode from now on.
---@param folder string writable; the socket lies in a new folder in it
---@return e2b.core.bridge|nil bridge
---@return string|nil message with nil: why not there
function core.bridge(folder) end

--- Starts a program that is nobody's child, in a session of its own, in the folder "/", deaf to every signal that can
--- be blocked. It has no descriptors but the leash (0 and 1) and /dev/null (2), and of the environment what names no
--- key. On Linux it sees the end of this process also while a forked child holds a copy of the leash.
---@param words string[] the program's path, and its arguments
---@return e2b.core.leash|nil leash a program that can't be executed is one that ends at once
---@return string|nil message
function core.leash_program(words) end

--- This end, in a program that was started so.
---@return e2b.core.leash
function core.leash() end

--- Where this process is.
---@return string|nil folder the working directory
---@return string|nil program the file that it executes, on Linux
function core.place() end

--- Base64, in the standard alphabet and padded.
---@param bytes string
---@return string text
function core.base64_encode(bytes) end

--- The bytes of a base64 text: either alphabet, padded or not.
---@param text string
---@return string|nil bytes nil: not base64
function core.base64_decode(text) end

--- The engine of this Lua state. libcurl's multi handle is made by its first start().
---@return e2b.core.engine
function core.engine() end

--- Sends a transfer. What libcurl refuses is a finished transfer; a transfer started already raises.
---@param which e2b.core.transfer
function engine:start(which) end

--- Drives until there is news, `seconds` (at most 1) are over or a signal came.
---@param seconds number
---@param which? e2b.core.transfer wait for this one: finished() does not tell of its end then
---@param fd? integer a terminal or a pipe: returns when it is readable, too
---@return boolean news with `which`: that one is done
---@return boolean|nil others with `which`: there is news of others, to be taken with finished()
---@return boolean|nil readable with `fd`: there is something to read, or the other end was closed
function engine:wait(seconds, which, fd) end

--- Drives without waiting.
function engine:step() end

--- The next transfer with news. "read": headers or bytes came after a read() that had nothing; "write": there is room
--- after a write() that was refused; "done": told once, and last. Made for `for transfer, event in engine.finished,
--- engine do`.
---@return e2b.core.transfer|nil which
---@return "done"|"read"|"write"|nil event
function engine:finished() end

--- One descriptor that is readable whenever step() has something to do. Switches to socket mode for good: libcurl is
--- driven through it from now on, by wait() too. A forked child gets another one.
---@return integer fd
function engine:pollfd() end

--- What a loop waits for on pollfd.
---@return "r" events what to wait for
function engine:events() end

--- Seconds until step() has to be called even when the descriptor is quiet; changes with every step and start.
---@return number|nil seconds nil: nothing is in flight
function engine:timeout() end

--- The cap on open connections (100); further transfers queue, their deadlines run. Streams of events come on
--- top, up to 400 of them: they may stay open for long.
---@param n integer
function engine:connections(n) end

--- Ends what is in flight (cause "cancelled"), drops pooled connections. The engine goes on to be usable.
function engine:close() end

--- Takes the transfer out of libcurl at once; finished() never tells of it. Idempotent. What had arrived whole stays
--- its result.
function transfer:cancel() end

--- Some bytes of a streamed body. Takes the pause back when the buffer is half empty.
---@param max? integer
---@return string|false|nil bytes false: none yet; nil: the body has ended or failed, result() says which
function transfer:read(max) end

--- The next event of a stream (rows process_start, process_connect, dir_watch):
---   "start", pid                       of a process; "start" alone of a watched folder
---   "stdout"|"stderr"|"pty", bytes     chunks of one kind that are there already come as one, up to 64 KiB
---   "end", { exit_code, exited, status?, error? }
---   "filesystem", { name, type?, entry? }
--- Events that only keep the connection alive are left out.
---@return string|false|nil kind false: none yet; nil: the stream has ended or failed, result() says which
---@return integer|string|table|nil value
function transfer:event() end

--- Gives bytes of a request's body (source = "chunks"). A piece larger than the high-water mark is taken when the
--- buffer is empty.
---@param data string
---@return boolean|nil taken false: nothing of it, wait for "write"; nil: the transfer has ended
function transfer:write(data) end

--- The request's body ends here.
function transfer:close_write() end

--- The HTTP status.
---@return integer|nil status once the head of the answer is there
function transfer:status() end

--- Bytes so far.
---@return integer bytes_down of the answer's body, decoded
---@return integer bytes_up of the request's body
---@return integer|nil total_down as announced
---@return integer|nil total_up
function transfer:progress() end

--- What became of it; after "done" or cancel(), once: frees the body, also what of a stream was not read.
---@return boolean ok false: the second value is e2b.core.facts and the last
---@return any value shaped by the call's row; true where there is none, and for streams and sinks
---@return integer|nil date the Date header, seconds since the epoch
---@return integer|nil status
---@return string|nil next_token X-Next-Token
---@return integer|nil total_running X-Total-Running
---@return string|nil request_id X-E2B-Trace-ID
function transfer:result() end

--- Remembers what Ctrl-C (SIGINT) does now: the lua program's handler takes itself away when it has run once
--- (csrc/interrupt.c).
---@return fun() put_back makes it so again
function core.keep_interrupt() end

--- This process's terminal (csrc/terminal.c). Collected or closed, it puts the terminal back as it was.
---@class e2b.core.terminal
local terminal = {}

--- A terminal to read from and write to. Neither ever blocks; other users of the descriptors don't notice.
---@param input integer descriptor
---@param output integer descriptor
---@return e2b.core.terminal|nil terminal
---@return string|nil message one of them is no terminal
function core.terminal(input, output) end

--- How large it is; 80 and 24 where it doesn't say.
---@return integer columns
---@return integer rows
function terminal:size() end

--- Every key arrives as it is typed and nothing is echoed. A guard process puts the terminal back should this process
--- end without having done so, by SIGKILL for example; it is not there any more after restore() and close(). Called
--- again, it makes the terminal raw again, should somebody have changed that.
---@return true|nil ok
---@return string|nil message
function terminal:raw() end

--- Puts it back as it was before raw().
---@return true|nil ok
---@return string|nil message
function terminal:restore() end

--- What was typed so far.
---@return string|false|nil bytes false: nothing; nil: it is gone
function terminal:read() end

--- Writes what there is room for, and waits up to 20 ms for some.
---@param bytes string
---@param skip? integer bytes at the beginning that were taken before
---@return integer|nil taken
---@return string|nil message
function terminal:write(bytes, skip) end

--- What to wait on for input.
---@return integer fd
function terminal:fd() end

--- Restores, and gives its descriptors back. Idempotent.
function terminal:close() end

-- Local files (csrc/file.c, csrc/local.c). Everything is opened close-on-exec. What fails answers nil, a sentence that
-- names the path, and the errno; a path with a NUL byte is refused (EINVAL).

--- A local file that is read, or a temporary one that is written and then takes the place of its target. One that is
--- closed or collected before commit() is removed. Using it after close() or commit() raises.
---@class e2b.core.file
local file = {}

--- Opens for reading. Regular files only: what reads never waits. A link is followed.
---@param path string
---@return e2b.core.file|nil file
---@return string|nil message
---@return integer|nil errno EISDIR for a directory, EINVAL for a device, a pipe or a socket
function core.file_open(path) end

--- Makes a new file in the folder of `path`, with mode 0600. Where Linux and the file system can, it has no name before
--- commit(), so that a process that is killed leaves nothing behind; elsewhere one of its own, `.e2b-….part`. When
--- `path` is a link, what it points to is going to be replaced; what isn't a regular file, or may not be written, is
--- refused.
---@param path string
---@return e2b.core.file|nil file
---@return string|nil message
---@return integer|nil errno
function core.file_temp(path) end

--- The descriptor: a transfer's sink or source. The file keeps it and closes it.
---@return integer fd
function file:fd() end

--- How long it is now.
---@return integer|nil bytes
function file:size() end

--- Some bytes from where the last read ended.
---@param n? integer at most so many (65536); more than 1 MiB is never read at once
---@return string|nil bytes nil without a message: the end
---@return string|nil message
---@return integer|nil errno
function file:read(n) end

--- Writes all of it.
---@param bytes string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno ENOSPC on a full disk
function file:write(bytes) end

--- Renames it over its target, which is either the old file or the new one at any moment. Nothing is synced to disk.
--- Closed afterwards; removed when it failed.
---@param mode? integer permission bits; nil: the replaced file's (with its owner), for a new one what the umask leaves
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function file:commit(mode) end

--- Idempotent. Removes what was not committed.
function file:close() end

--- The names in a directory, in the order of their bytes.
---@param dir string
---@return string[]|nil names without "." and ".."
---@return string|nil message
---@return integer|nil errno
function core.fs_list(dir) end

---@class e2b.core.journal a file of lines that several processes append to; locked while it is open
local journal = {}

--- Opens and locks a journal. The file that has the name now is meant: another process may have replaced it. What isn't
--- a regular file, or is a link, belongs to another user (root may), or may be written by others is refused; so is one
--- that another process has had locked for 5 seconds.
---@param path string
---@param make? boolean make it when it isn't there, with mode 0600
---@return e2b.core.journal|nil journal
---@return string|nil message
---@return integer|nil errno
function core.journal_open(path, make) end

--- All of it.
---@return string|nil text
---@return string|nil message
---@return integer|nil errno
function journal:read() end

--- How large it is.
---@return integer bytes
function journal:size() end

--- Appends in one write: all of it or nothing. A last line without an end is ended first.
---@param text string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function journal:append(text) end

--- Puts another text in its place: whatever happens, the file is the old one or the new one, which is on the disk then.
--- Closes the journal, unless it fails before anything has changed.
---@param text string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function journal:replace(text) end

--- Unlocks and closes.
---@param sync? boolean not before what was written is on the disk
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function journal:close(sync) end

--- A path that stays right when the working directory changes.
---@param path string
---@return string path from the root on; as it is where the working directory can't be told
function core.path_whole(path) end

--- When a process began, in the system's own terms: with the process id it names a process for good.
---@param pid integer
---@return string|nil start "?": it runs, and its start can't be told here; nil: no such process runs
function core.process_start(pid) end

--- Where a process id means something.
---@return string boot changes with every start of the system; "?" where that can't be told
---@return string host the name of this machine
---@return string space the namespaces of this process (containers have their own); "?" where there are none
function core.process_place() end

---@class e2b.core.fs_stat
---@field type "file"|"dir"|"symlink"|"other"
---@field size integer bytes
---@field mode integer permission bits with set-id and sticky, 0 to 4095
---@field mtime integer seconds since the epoch, rounded down
---@field target? string what a symlink holds

--- What is there under this path.
---@param path string
---@param follow? boolean ask about what a link points to
---@return e2b.core.fs_stat|nil entry
---@return string|nil message
---@return integer|nil errno ENOENT when there is nothing
function core.fs_stat(path, follow) end

--- Makes one directory.
---@param path string
---@param mode? integer permission bits, less the umask (511, 0777)
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno EEXIST when there is something
function core.fs_mkdir(path, mode) end

--- Makes a symbolic link.
---@param target string what it holds; need not exist
---@param path string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function core.fs_symlink(target, path) end

--- Sets permission bits and time of modification. A link itself is meant, and it has no mode.
---@param path string
---@param mode? integer nil: left as it is
---@param mtime? number seconds since the epoch; nil: left as it is
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function core.fs_touch(path, mode, mtime) end

--- Removes a file, a link or an empty directory.
---@param path string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function core.fs_remove(path) end

-- Digests and compression (csrc/sha256.c, csrc/deflate.c).

--- SHA-256.
---@param bytes string
---@return string digest 32 bytes
function core.sha256(bytes) end

--- Makes a gzip stream out of pieces.
---@class e2b.core.deflate
local deflate = {}

--- A new gzip stream.
---@param level? integer 0 to 9; nil: zlib's usual
---@return e2b.core.deflate
function core.deflate(level) end

--- Takes the next piece.
---@param bytes string
---@param finish? "finish" it was the last one: writing again raises
---@return string compressed "" while zlib keeps it back
function deflate:write(bytes, finish) end

-- What a process wrote (csrc/output.c).

--- The newest bytes of many pieces.
---@class e2b.core.output
local output = {}

--- An empty one.
---@param most integer bytes to keep
---@return e2b.core.output
function core.output(most) end

--- Adds a piece; the oldest bytes go when there are too many.
---@param bytes string
function output:add(bytes) end

--- What is kept; it is empty afterwards.
---@return string
function output:take() end

--- How many bytes were dropped.
---@return integer
function output:dropped() end

-- Where a received archive is unpacked (csrc/tree.c). `rel` is a name below the directory: one that is absolute, has a
-- ".." or a NUL byte, or goes through a link is refused (EINVAL, ELOOP). Parents that are missing are made. What fails
-- answers nil, a sentence that names `rel`, and the errno.

--- A directory that nothing made through it ever leaves, whatever names and links an archive holds.
---@class e2b.core.tree
local tree = {}

--- Opens a directory that is there.
---@param dir string
---@return e2b.core.tree|nil tree
---@return string|nil message
---@return integer|nil errno
function core.tree(dir) end

--- Makes a directory; one that is there stays as it is.
---@param rel string
---@param mode? integer permission bits, less the umask; the owner always gets all of them, touch() is exact
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function tree:mkdir(rel, mode) end

--- A new file that takes its place, and that of a file or link there, with commit().
---@param rel string
---@param mode? integer what commit() sets when it is given none
---@return e2b.core.file|nil file
---@return string|nil message
---@return integer|nil errno
function tree:create(rel, mode) end

--- Makes a symbolic link, in the place of a file or link there. Its target is the archive's and not judged: links are
--- never gone through here.
---@param target string
---@param rel string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function tree:symlink(target, rel) end

--- Gives a file of this tree one more name (a hard link), in the place of a file or link there.
---@param other string the name it has
---@param rel string
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function tree:link(other, rel) end

--- Sets permission bits and time of modification; of a link itself only the time.
---@param rel string
---@param mode? integer nil: left as it is
---@param mtime? number seconds since the epoch; nil: left as it is
---@return true|nil ok
---@return string|nil message
---@return integer|nil errno
function tree:touch(rel, mode, mtime) end

--- Idempotent.
function tree:close() end

--- The transfer is nobody's any more: it goes on without a guard. Idempotent.
function guard:release() end

--- Where to connect to, once: a unix socket with a random name in a folder that only this user may enter. It and the
--- folder are removed by start() and close().
---@return string|nil path nil when they are
function bridge:path() end

--- Takes the connection that this process has made to path(), and starts the thread. From now on it sends a byte there
--- when the engine's descriptor is readable, and the next one only after it got one back. When the thread ends, the
--- connection does.
---@return boolean|nil started
---@return string|nil message with nil: there is no such connection yet (it may be tried again), or no thread to be had
function bridge:start() end

--- Ends and joins the thread. Idempotent; the end of the Lua state and the collection of the bridge do it, too. In a
--- forked child the parent's thread and name are left alone.
function bridge:close() end

--- Sends as much as there is room for, without SIGPIPE; the rest waits for the next call. With a target, its headers
--- and its proxy follow, a line each ("header NAME: VALUE", "proxy URL"): a way for a key that leads past Lua.
---@param bytes string
---@param target? e2b.core.target
---@return boolean|nil all false: some of it waits; nil: nobody is there
---@return string|nil message
function leash:send(bytes, target) end

--- What came.
---@param seconds number to wait at most, 0: not at all; negative: for ever
---@return string|false|nil bytes false: nothing; nil: the other end is gone, and there is no more
function leash:receive(seconds) end

--- Gives its descriptors back. Idempotent.
function leash:close() end

return core
