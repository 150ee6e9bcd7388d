/* The calls to envd, the daemon inside a sandbox: Connect RPC with JSON for processes and folders, plain HTTP for the
 * contents of files. */
#include "calls.h"
#include "e2b.h"

static const e2b_shape string = {E2B_STRING, 0, NULL, NULL};
static const e2b_shape text = {E2B_TEXT, 0, NULL, NULL};
static const e2b_shape boolean = {E2B_BOOL, 0, NULL, NULL};
static const e2b_shape number = {E2B_NUMBER, 0, NULL, NULL};
static const e2b_shape whole = {E2B_WHOLE, 0, NULL, NULL};
static const e2b_shape int64 = {E2B_INT64, 0, NULL, NULL};
static const e2b_shape bytes = {E2B_BYTES, 0, NULL, NULL};
static const e2b_shape date = {E2B_TIME, 0, NULL, NULL};
static const e2b_shape string_list = {E2B_LIST, 0, NULL, &string};
static const e2b_shape string_map = {E2B_MAP, 0, NULL, &string};

/* An answer `{}`: its fields, if there ever are any, mean nothing. */
static const e2b_shape nothing = {E2B_INNER, 0, NULL, NULL};

/* ---- Processes ---- */

static const e2b_field config_fields[] = {
    FIELD("cmd", "cmd", string, E2B_DEFAULT),
    FIELD("args", "args", string_list, E2B_DEFAULT),
    FIELD("envs", "envs", string_map, E2B_DEFAULT),
    FIELD("cwd", "cwd", text, 0),
    END,
};
static const e2b_shape config = {E2B_OBJECT, PROCESS_CONFIG, config_fields, NULL};

static const e2b_field process_fields[] = {
    FIELD("pid", "pid", int64, E2B_REQUIRED),
    FIELD("tag", "tag", string, 0),
    FIELD("config", "config", config, E2B_DEFAULT),
    END,
};
static const e2b_shape process = {E2B_OBJECT, PROCESS, process_fields, NULL};
static const e2b_shape process_list = {E2B_LIST, 0, NULL, &process};
static const e2b_field processes_fields[] = {FIELD("processes", "processes", process_list, E2B_DEFAULT), END};
static const e2b_shape processes = {E2B_INNER, 0, processes_fields, NULL};

static const e2b_field end_fields[] = {
    FIELD("exitCode", "exit_code", int64, E2B_DEFAULT),
    FIELD("exited", "exited", boolean, E2B_DEFAULT),
    FIELD("status", "status", string, 0),
    FIELD("error", "error", text, 0),
    END,
};
const e2b_shape e2b_process_end = {E2B_OBJECT, PROCESS_END, end_fields, NULL};

static const e2b_field selector_fields[] = {
    FIELD("pid", "pid", whole, 0),
    FIELD("tag", "tag", string, 0),
    END,
};
static const e2b_shape selector = {E2B_OBJECT, 0, selector_fields, NULL};

static const e2b_field size_fields[] = {FIELD("cols", "cols", whole, 0), FIELD("rows", "rows", whole, 0), END};
static const e2b_shape size = {E2B_OBJECT, 0, size_fields, NULL};
static const e2b_field pty_fields[] = {FIELD("size", "size", size, 0), END};
static const e2b_shape pty = {E2B_OBJECT, 0, pty_fields, NULL};

static const e2b_field input_fields[] = {FIELD("stdin", "stdin", bytes, 0), FIELD("pty", "pty", bytes, 0), END};
static const e2b_shape input = {E2B_OBJECT, 0, input_fields, NULL};

static const e2b_field start_body[] = {
    FIELD("process", "process", config, 0),
    FIELD("pty", "pty", pty, 0),
    FIELD("tag", "tag", string, 0),
    FIELD("stdin", "stdin", boolean, 0),
    END,
};
static const e2b_field select_body[] = {FIELD("process", "process", selector, 0), END};
static const e2b_field update_body[] = {
    FIELD("process", "process", selector, 0),
    FIELD("pty", "pty", pty, 0),
    END,
};
static const e2b_field input_body[] = {
    FIELD("process", "process", selector, 0),
    FIELD("input", "input", input, 0),
    END,
};
static const e2b_field signal_body[] = {
    FIELD("process", "process", selector, 0),
    FIELD("signal", "signal", string, 0),
    END,
};
static const e2b_field no_body[] = {END};

/* ---- Folders ---- */

/* The protocol numbers these from 1 on, in this order; any other one is as if it were not there. */
static const e2b_field file_types[] = {
    FIELD("FILE_TYPE_FILE", "file", any, 0),
    FIELD("FILE_TYPE_DIRECTORY", "dir", any, 0),
    FIELD("FILE_TYPE_SYMLINK", "symlink", any, 0),
    END,
};
static const e2b_shape file_type = {E2B_ENUM, 0, file_types, NULL};
static const e2b_field event_types[] = {
    FIELD("EVENT_TYPE_CREATE", "create", any, 0),
    FIELD("EVENT_TYPE_WRITE", "write", any, 0),
    FIELD("EVENT_TYPE_REMOVE", "remove", any, 0),
    FIELD("EVENT_TYPE_RENAME", "rename", any, 0),
    FIELD("EVENT_TYPE_CHMOD", "chmod", any, 0),
    END,
};
static const e2b_shape event_type = {E2B_ENUM, 0, event_types, NULL};

static const e2b_field entry_fields[] = {
    FIELD("name", "name", string, 0),
    FIELD("type", "type", file_type, 0),
    FIELD("path", "path", string, 0),
    FIELD("size", "size", int64, E2B_DEFAULT),
    FIELD("mode", "mode", int64, E2B_DEFAULT),
    FIELD("permissions", "permissions", string, 0),
    FIELD("owner", "owner", string, 0),
    FIELD("group", "group", string, 0),
    FIELD("modifiedTime", "modified_time", date, 0),
    FIELD("symlinkTarget", "symlink_target", string, 0),
    FIELD("metadata", "metadata", string_map, 0),
    END,
};
static const e2b_shape entry = {E2B_OBJECT, ENTRY, entry_fields, NULL};
static const e2b_shape entry_list = {E2B_LIST, 0, NULL, &entry};
static const e2b_field one_fields[] = {FIELD("entry", "entry", entry, E2B_REQUIRED), END};
static const e2b_shape one_entry = {E2B_INNER, 0, one_fields, NULL};
static const e2b_field entries_fields[] = {FIELD("entries", "entries", entry_list, E2B_DEFAULT), END};
static const e2b_shape entries = {E2B_INNER, 0, entries_fields, NULL};

static const e2b_field event_fields[] = {
    FIELD("name", "name", string, E2B_DEFAULT),
    FIELD("type", "type", event_type, 0),
    FIELD("entry", "entry", entry, 0),
    END,
};
const e2b_shape e2b_watch_event = {E2B_OBJECT, WATCH_EVENT, event_fields, NULL};
static const e2b_shape event_list = {E2B_LIST, 0, NULL, &e2b_watch_event};
static const e2b_field events_fields[] = {FIELD("events", "events", event_list, E2B_DEFAULT), END};
static const e2b_shape events = {E2B_INNER, 0, events_fields, NULL};

static const e2b_field watcher_fields[] = {FIELD("watcherId", "watcher_id", text, E2B_REQUIRED), END};
static const e2b_shape watcher = {E2B_OBJECT, WATCHER, watcher_fields, NULL};

static const e2b_field path_body[] = {FIELD("path", "path", string, 0), END};
static const e2b_field move_body[] = {
    FIELD("source", "source", string, 0),
    FIELD("destination", "destination", string, 0),
    END,
};
static const e2b_field list_body[] = {FIELD("path", "path", string, 0), FIELD("depth", "depth", whole, 0), END};
static const e2b_field watch_body[] = {
    FIELD("path", "path", string, 0),
    FIELD("recursive", "recursive", boolean, 0),
    FIELD("includeEntry", "include_entry", boolean, 0),
    FIELD("allowNetworkMounts", "allow_network_mounts", boolean, 0),
    END,
};
static const e2b_field watcher_body[] = {FIELD("watcherId", "watcher_id", string, 0), END};

/* ---- Contents of files, and the daemon itself ---- */

static const e2b_field write_info_fields[] = {
    FIELD("name", "name", string, 0),
    FIELD("path", "path", string, E2B_REQUIRED),
    FIELD("type", "type", string, 0),
    FIELD("metadata", "metadata", string_map, 0),
    END,
};
static const e2b_shape write_info = {E2B_OBJECT, WRITE_INFO, write_info_fields, NULL};
static const e2b_shape write_info_list = {E2B_LIST, 0, NULL, &write_info};

static const e2b_field files_query[] = {
    FIELD("path", "path", string, 0),
    FIELD("username", "username", text, 0),
    END,
};
static const e2b_field compose_body[] = {
    FIELD("source_paths", "source_paths", string_list, 0),
    FIELD("destination", "destination", string, 0),
    FIELD("username", "username", text, 0),
    END,
};

static const e2b_field metrics_fields[] = {
    FIELD("ts", "timestamp", number, 0),
    FIELD("cpu_count", "cpu_count", number, 0),
    FIELD("cpu_used_pct", "cpu_used_pct", number, 0),
    FIELD("mem_total_mib", "mem_total_mib", number, 0),
    FIELD("mem_used_mib", "mem_used_mib", number, 0),
    FIELD("mem_total", "mem_total", number, 0),
    FIELD("mem_used", "mem_used", number, 0),
    FIELD("mem_cache", "mem_cache", number, 0),
    FIELD("disk_used", "disk_used", number, 0),
    FIELD("disk_total", "disk_total", number, 0),
    END,
};
static const e2b_shape metrics = {E2B_OBJECT, ENVD_METRICS, metrics_fields, NULL};

/* ---- The table ---- */

#define UNARY (E2B_RPC | E2B_ALWAYS_BODY)
#define STREAM (E2B_RPC | E2B_STREAM | E2B_ALWAYS_BODY)
#define P "/process.Process/"
#define F "/filesystem.Filesystem/"

const e2b_call e2b_envd_calls[] = {
    {"envd_health", "GET", "/health", 204, E2B_IDEMPOTENT, NULL, NULL, NULL},
    {"envd_metrics", "GET", "/metrics", 200, E2B_IDEMPOTENT, NULL, NULL, &metrics},
    {"envd_envs", "GET", "/envs", 200, E2B_IDEMPOTENT, NULL, NULL, &string_map},
    {"process_list", "POST", P "List", 200, UNARY | E2B_READS, NULL, no_body, &processes},
    {"process_start", "POST", P "Start", 200, STREAM, NULL, start_body, NULL},
    {"process_connect", "POST", P "Connect", 200, STREAM, NULL, select_body, NULL},
    {"process_update", "POST", P "Update", 200, UNARY, NULL, update_body, &nothing},
    {"process_input", "POST", P "SendInput", 200, UNARY, NULL, input_body, &nothing},
    {"process_signal", "POST", P "SendSignal", 200, UNARY, NULL, signal_body, &nothing},
    {"process_close_stdin", "POST", P "CloseStdin", 200, UNARY, NULL, select_body, &nothing},
    {"fs_stat", "POST", F "Stat", 200, UNARY | E2B_READS, NULL, path_body, &one_entry},
    {"fs_make_dir", "POST", F "MakeDir", 200, UNARY, NULL, path_body, &one_entry},
    {"fs_move", "POST", F "Move", 200, UNARY, NULL, move_body, &one_entry},
    {"fs_remove", "POST", F "Remove", 200, UNARY, NULL, path_body, &nothing},
    {"fs_list", "POST", F "ListDir", 200, UNARY | E2B_READS, NULL, list_body, &entries},
    {"dir_watch", "POST", F "WatchDir", 200, STREAM | E2B_WATCH, NULL, watch_body, NULL},
    {"watcher_create", "POST", F "CreateWatcher", 200, UNARY, NULL, watch_body, &watcher},
    {"watcher_events", "POST", F "GetWatcherEvents", 200, UNARY, NULL, watcher_body, &events},
    {"watcher_remove", "POST", F "RemoveWatcher", 200, UNARY, NULL, watcher_body, &nothing},
    {"files_read", "GET", "/files", 200, E2B_IDEMPOTENT | E2B_BYTES_ANSWER, files_query, NULL, NULL},
    {"files_write", "POST", "/files", 200, E2B_BYTES_BODY, files_query, NULL, &write_info_list},
    {"files_compose", "POST", "/files/compose", 200, E2B_ALWAYS_BODY, NULL, compose_body, &write_info},
};
const size_t e2b_envd_calls_count = sizeof e2b_envd_calls / sizeof *e2b_envd_calls;
